"""What is kept in the cache is mended where it is damaged, and done without where it cannot be written."""

import numpy as np

from zett.vocab.sampling.stored import stored


def test_damage_is_repaired(tmp_path):
    made = []

    def make_arrays():
        made.append(1)
        return {"a": np.arange(1000), "b": np.arange(3.0)}

    folder = tmp_path / "kept"
    for damage in (None, lambda: (folder / "a.npy").write_bytes(b"\x93NUMPY"), lambda: (folder / "b.npy").write_bytes(b"")):
        if damage:
            damage()
        for _ in range(2):
            arrays = stored(folder, make_arrays)
            assert isinstance(arrays["a"], np.memmap) and arrays["a"].sum() == 499500 and arrays["b"].tolist() == [0, 1, 2]
    assert len(made) == 3 and not list(tmp_path.glob(".*"))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    assert stored(tmp_path / "file" / "kept", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
