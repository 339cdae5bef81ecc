"""Tiny models of the golden files, loaded as a user's would be, against what Transformers computed with them."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from zett.lms import load_base_model
from zett.lms.family import family_of
from zett.lms.layers import positions_and_mask
from zett.table import EmbeddingTable

GOLDEN = Path(__file__).parent / "golden"


def load_script():
    spec = importlib.util.spec_from_file_location("make_bodies", GOLDEN / "make_bodies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_script()


def variants(*families: str) -> list[str]:
    return [name for name in make.VARIANTS if name.rpartition("-")[0] in families]


def by_family(names: list[str]) -> list:
    """`names` as parameters of a test; but for the first of each family, they are slow."""
    first = {name.rpartition("-")[0]: name for name in reversed(names)}
    return [name if name in first.values() else pytest.param(name, marks=pytest.mark.slow) for name in names]


def read_golden(variant: str) -> tuple[dict[str, np.ndarray], dict, dict]:
    with safe_open(GOLDEN / f"{variant}.safetensors", framework="numpy") as f:
        metadata = f.metadata()
        return {k: f.get_tensor(k) for k in f.keys()}, json.loads(metadata["config"]), json.loads(metadata["shapes"])


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENS = (*SPECIAL, *"etaoinshrdlucmwfgypbvkjxqz.")


def save_tokenizer(folder: Path, tokens=TOKENS) -> Path:
    """A WordPiece tokenizer of `tokens`, by default 32; returns `folder`."""
    model = tk.models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = tk.Tokenizer(model)
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([token for token in tokens if token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def base_folder(variant: str, folder: Path, **changes) -> Path:
    """The model folder of a golden file; `changes` are fields of its config.json."""
    _, config, shapes = read_golden(variant)
    save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    save_file(make.draw_weights(shapes), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def check_parity(
    variant: str, folder: Path, *, tolerance: float = 1e-4, gradient: bool = True, apart: bool = False, **options
) -> None:
    """Logits, hidden states and the gradient of the input rows, with padding on either side and packed sequences.

    apart: the packed row in a batch of its own, for models whose frequencies depend on the longest sequence of the batch.
    """
    golden, _, _ = read_golden(variant)
    base = load_base_model(base_folder(variant, folder), **options)
    table, ids, mask = base.table, golden["ids"], make.MASK.astype(bool)
    x = np.zeros((4, make.LENGTH, 1))
    packed = np.repeat([[0, 1]], make.PACKED, axis=1)
    positions = [positions_and_mask(x[:3], mask_BL=mask)[0], positions_and_mask(x[3:], segments_BL=packed)[0]]
    positions = np.concatenate(positions)
    mask = np.concatenate([mask, np.ones_like(mask[:1])])
    segments = np.concatenate([np.zeros_like(mask[:3]), packed])
    has_head = golden["output"].shape[-1] == make.VOCAB

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(rows):
        used = EmbeddingTable.of(rows, table.output, table.bias)
        body = nnx.merge(base.graphdef, base.params)
        parts = [
            body(used.embed(ids[r]), positions_BL=positions[r], mask_BL=mask[r], segments_BL=segments[r], keep_hidden=True)
            for r in ([slice(3), slice(3, 4)] if apart else [slice(4)])
        ]
        h, hidden = jnp.concatenate([h for h, _ in parts]), jnp.concatenate([hidden for _, hidden in parts], 1)
        if has_head:
            output = used.unembed(h, base.config.logit_softcap)
            scores = jnp.take_along_axis(jax.nn.log_softmax(output), ids[..., None], -1)[..., 0]
        else:
            output, scores = h, h @ make.projection(h.shape[-1])
        return (scores * mask).sum(), (output, hidden)

    with jax.default_matmul_precision("highest"):
        (_, (output, hidden)), input_gradient = run(jnp.asarray(table.input))
    # What a model computes at padding is nobody's business, and differs.
    near = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(output[mask], golden["output"][mask], **near)
    np.testing.assert_allclose(hidden[:, mask], golden["hidden"][:, mask], **near)
    if gradient:
        np.testing.assert_allclose(input_gradient, golden["input_gradient"], **near)


def check_golden_files(names: list[str]) -> None:
    """The golden files are what the installed Transformers computes."""
    pytest.importorskip("torch")
    for variant in names:
        stored, _, shapes = read_golden(variant)
        fresh, _, fresh_shapes = make.compute(variant)
        assert sorted(fresh) == sorted(stored) and fresh_shapes == shapes
        for name, value in fresh.items():
            note = f"{variant} {name}: renew with `python {make.__file__}` if Transformers is right"
            np.testing.assert_allclose(value, stored[name], rtol=1e-4, atol=1e-4, err_msg=note)


def check_bfloat16(variant: str, folder: Path) -> None:
    """Products of bfloat16 operands: hidden states within 2 % of the root mean square of what float32 gives; with all that is
    between them in bfloat16, too, as accelerators compute, within 4 %."""
    golden, _, _ = read_golden(variant)
    base = load_base_model(base_folder(variant, folder), dtype="bfloat16")
    wanted = golden["hidden"][:, :1]
    run = jax.jit(lambda x, params: nnx.merge(base.graphdef, params)(x, keep_hidden=True)[1])
    for activations, most in (("float32", 0.02), ("bfloat16", 0.04)):
        hidden = run(base.table.embed(golden["ids"][:1]).astype(activations), base.params)
        assert hidden.dtype == activations
        error = np.sqrt(np.square(hidden.astype("float32") - wanted).mean((1, 2, 3)) / np.square(wanted).mean((1, 2, 3)))
        assert (error < most).all() and error.max() > 1e-4  # it is another type, and it is used


def check_padding(base) -> None:
    """What stands at padding, on either side, changes nothing; positions count from the first real token."""
    x = np.asarray(base.table.embed(np.arange(5, 14)[None]))
    body = jax.jit(nnx.merge(base.graphdef, base.params))
    padded = np.concatenate([np.full_like(x[:, :4], 3.0), x, np.full_like(x[:, :2], 3.0)], 1)
    mask = np.zeros((1, padded.shape[1]), bool)
    mask[:, 4:-2] = True
    np.testing.assert_allclose(body(padded, mask_BL=mask)[:, 4:-2], body(x), rtol=1e-4, atol=1e-4)


# Fields that nearly every config.json has.
SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}


def check_config(kind: str, fields: dict) -> None:
    """A config.json means the same with the fields that Transformers adds to it; so do its absent ones."""
    transformers = pytest.importorskip("transformers")
    config = family_of({"model_type": kind}).Config
    theirs = transformers.AutoConfig.for_model(kind, **json.loads(json.dumps(fields)))
    assert config.from_hf(fields) == config.from_hf(theirs.to_dict())


def torch_folder(variant: str, folder: Path) -> Path:
    """The model of a golden file, saved by Transformers, with a tokenizer."""
    model, _ = make.build(variant)
    model.save_pretrained(folder)
    return save_tokenizer(folder)


def torch_output(kind: str, folder: Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Logits, or hidden states of a model without head, of a folder that Transformers loads; float32."""
    import torch
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    ids, mask = torch.from_numpy(ids), torch.from_numpy(np.array(mask))
    positions = {} if "roberta" in model.config.model_type else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    with torch.no_grad():
        return model.eval()(ids, attention_mask=mask, **positions)[0].numpy()
