"""Changes to model folders that tests make."""

import json

from safetensors.numpy import load_file, save_file

from zett.files.tensors import stored_tensors


def edit_json(path, **changes):
    """Set fields of a JSON file, which need not be there; those that are `...` go."""
    value = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


def shard(folder, parts: int = 3):
    """Split model.safetensors as Transformers does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i in range(parts):
        names = sorted(tensors)[i::parts]
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        save_file({n: tensors[n] for n in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def raw_tensors(folder) -> dict[str, tuple]:
    """Type, shape, file and bytes of every tensor."""
    tensors = {}
    for name, t in stored_tensors(folder).items():
        tensors[name] = (t.dtype, t.shape, t.file.name, t.file.read_bytes()[t.start : t.stop])
    return tensors
