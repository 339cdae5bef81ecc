"""What is known of devices."""

import jax

from zett.plan.devices import DEVICES, find_device


def test_peaks_are_of_known_devices_alone():
    assert find_device("NVIDIA H100 80GB HBM3").peak == 989e12
    assert find_device("TPU v5 lite").name == "tpu-v5e"
    assert find_device(jax.devices("cpu")[0].device_kind) is None
    assert find_device("NVIDIA H100 of another kind") is None
    kinds = [kind for device in DEVICES for kind in device.kinds]
    assert len(kinds) == len(set(kinds))
