"""Peak rates and memory of known devices."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """One device, as JAX counts them. kinds: its `device_kind`s. peak: FLOP/s of dense bfloat16 products. memory: in GiB."""

    name: str
    kinds: tuple[str, ...]
    peak: float
    memory: float


# From the vendors' data sheets. Rates of GPUs are those without sparsity.
DEVICES = (
    Device("h200", ("NVIDIA H200",), 989e12, 140),
    Device("h100", ("NVIDIA H100 80GB HBM3",), 989e12, 79),
    Device("h100-pcie", ("NVIDIA H100 PCIe",), 756e12, 79),
    Device("a100-80gb", ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"), 312e12, 80),
    Device("a100-40gb", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312e12, 40),
    Device("l40s", ("NVIDIA L40S",), 362e12, 45),
    Device("rtx4090", ("NVIDIA GeForce RTX 4090",), 165e12, 24),
    Device("tpu-v3", ("TPU v3",), 61.5e12, 16),  # one core; a chip has two
    Device("tpu-v4", ("TPU v4",), 275e12, 32),
    Device("tpu-v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16),
    Device("tpu-v5p", ("TPU v5", "TPU v5p"), 459e12, 95),
    Device("tpu-v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32),
)


def find_device(kind: str) -> Device | None:
    """The device that JAX calls `kind`; None if its peak is not known here."""
    return next((device for device in DEVICES if kind in device.kinds), None)
