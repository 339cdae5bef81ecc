"""Peak rates and memory of known devices."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """One device, as JAX counts them.

    kinds: its `device_kind`s. peak: FLOP/s of dense bfloat16 products. memory: in GiB. bandwidth: of that memory, in bytes a
    second (0: not known). capability: the compute capability of an NVIDIA GPU.
    """

    name: str
    kinds: tuple[str, ...]
    peak: float
    memory: float
    bandwidth: float = 0.0
    capability: float = 0.0


# From the vendors' data sheets. Rates of GPUs are those without sparsity.
DEVICES = (
    Device("h200", ("NVIDIA H200",), 989e12, 140, 4.8e12, 9.0),
    Device("h100", ("NVIDIA H100 80GB HBM3",), 989e12, 79, 3.35e12, 9.0),
    Device("h100-pcie", ("NVIDIA H100 PCIe",), 756e12, 79, 2.0e12, 9.0),
    Device("a100-80gb", ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"), 312e12, 80, 1.94e12, 8.0),
    Device("a100-40gb", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312e12, 40, 1.55e12, 8.0),
    Device("l40s", ("NVIDIA L40S",), 362e12, 45, 864e9, 8.9),
    Device("rtx4090", ("NVIDIA GeForce RTX 4090",), 165e12, 24, 1.01e12, 8.9),
    Device("tpu-v3", ("TPU v3",), 61.5e12, 16, 450e9),  # one core; a chip has two
    Device("tpu-v4", ("TPU v4",), 275e12, 32, 1.2e12),
    Device("tpu-v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16, 819e9),
    Device("tpu-v5p", ("TPU v5", "TPU v5p"), 459e12, 95, 2.77e12),
    Device("tpu-v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32, 1.64e12),
)


def find_device(kind: str) -> Device | None:
    """The device that JAX calls `kind`; None if its peak is not known here."""
    return next((device for device in DEVICES if kind in device.kinds), None)
