"""The Python sources of this machine."""

from zett.data.documents import held_out
from zett.data.python import python_sources
from zett.data.sources import open_text


def test_python_sources_are_deterministic_and_disjoint():
    small = {"package_bytes": 100_000}
    train, valid = (open_text("python", split=split, **small) for split in ("train", "valid"))
    again = python_sources.__wrapped__("train", 100_000)
    assert again.items == train.items and again.fingerprint() == train.fingerprint() != valid.fingerprint()
    assert len(train) > len(valid) > 0
    texts = [set(train), set(valid)]
    assert len(texts[0]) == len(train) and not texts[0] & texts[1]
    assert any("import os" in text for text in texts[0])


def test_copies_do_not_cross_the_splits(tmp_path, monkeypatch):
    """Packages carry copies of one another; a held-out file that is in the training split too would be no test."""
    keys = [f"a/{i}.py" for i in range(200)]
    train, valid = ([k for k in keys if held_out(k) == wanted] for wanted in (False, True))
    (tmp_path / "a").mkdir()
    for i, key in enumerate(train):
        (tmp_path / key).write_text(f"x = {i}  # " + "long enough " * 20)
    for i, key in enumerate(valid):
        (tmp_path / key).write_text(("copy = 0 # " if i else "") + (tmp_path / train[0]).read_text())
    assert len(valid) > 1
    monkeypatch.setattr("sysconfig.get_paths", lambda: dict.fromkeys(("stdlib", "purelib", "platlib"), tmp_path))
    python_sources.cache_clear()
    try:
        texts = [set(python_sources(split, 10**6)) for split in ("train", "valid")]
    finally:
        python_sources.cache_clear()
    assert len(texts[0]) == len(train) and len(texts[1]) == 1 and not texts[0] & texts[1]
