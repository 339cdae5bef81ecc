"""Gemma 3n and Gemma 4 have a second table, with a part for each layer: whatever changes the vocabulary changes it, too."""

import json
import shutil

import numpy as np
import pytest
import tiny
from lms.folders import edit_json
from safetensors.numpy import load_file

import zett
from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods import make_method
from zett.vocab import load_tokenizer, surface_forms
from zett.vocab.train import save_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MAIN, PER_LAYER = "model.embed_tokens.weight", "model.embed_tokens_per_layer.weight"
TEXT = "".join(tiny.TEXT)[:300]
SHAPE = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=24,
    hidden_size_per_layer_input=4, num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    vocab_size=300, bos_token_id=0, eos_token_id=0, pad_token_id=1, max_position_embeddings=512, sliding_window=16,
)  # fmt: skip
GEMMA_3N = dict(laurel_rank=4, activation_sparsity_pattern=[0.0, 0.0], altup_num_inputs=2)
KINDS = {
    # Gemma 3n's ids from 294 on have no row of their own for each layer, and compute with that of id 0.
    "Gemma3n": SHAPE | GEMMA_3N | dict(vocab_size_per_layer_input=294),
    "Gemma4": SHAPE | dict(vocab_size_per_layer_input=300, global_head_dim=8),
}


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp(request.param) / "base", request.param)


def write(folder, kind):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}TextConfig")(**KINDS[kind])
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    save_tokenizer(tiny.tokenizer(), folder)
    return folder


def logits(folder, ids) -> np.ndarray:
    """As Transformers computes them, from weights all of which it finds."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        return model.eval()(torch.tensor(np.asarray(ids)[None])).logits[0].numpy()


def rows_of(folder) -> tuple[np.ndarray, np.ndarray]:
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert config["vocab_size_per_layer_input"] == config["vocab_size"] == len(tensors[MAIN]) == len(tensors[PER_LAYER])
    return tensors[MAIN], tensors[PER_LAYER]


def source_rows(folder) -> np.ndarray:
    rows = load_file(folder / "model.safetensors")[PER_LAYER]
    return np.concatenate([rows, np.repeat(rows[:1], 300 - len(rows), 0)])


def test_the_same_tokens_in_another_order(base, tmp_path):
    """The logits are those of before, in the other order."""
    order = np.random.default_rng(0).permutation(300)  # the new id of each old one
    spec = json.loads((base / "tokenizer.json").read_text())
    spec["model"]["vocab"] = {text: int(order[i]) for text, i in spec["model"]["vocab"].items()}
    for token in spec["added_tokens"]:
        token["id"] = int(order[token["id"]])
    other = tmp_path / "tokenizer"
    other.mkdir()
    (other / "tokenizer.json").write_text(json.dumps(spec))
    shutil.copy(base / "tokenizer_config.json", other)
    output = zett.transfer(base, other, tmp_path / "out", method="fvt")
    ids = np.random.default_rng(1).integers(2, 300, 40)
    np.testing.assert_allclose(logits(output, order[ids])[:, order], logits(base, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["fvt", "mean", "random", "weighted", "first_last", "weighted:input=last"])
def test_methods_that_mix_rows(method, base, tmp_path, target_folder):
    output = tmp_path / "out"
    zett.transfer(base, target_folder, output, method=method)
    source, target = load_tokenizer(base), load_tokenizer(target_folder)
    forms = surface_forms(target, source, 64)
    _, per_layer = rows_of(output)
    before = source_rows(base)
    shared, new = np.flatnonzero(forms.same >= 0), np.flatnonzero(forms.same < 0)
    assert len(shared) > 100 and len(new) > 50
    np.testing.assert_array_equal(per_layer[shared], before[forms.same[shared]])
    if method == "random":
        assert len(np.unique(per_layer[new], axis=0)) == len(new)
        assert abs(per_layer[new].std() / before.std() - 1) < 0.1
    for i in new if method != "random" else ():
        pieces = forms.pieces[i][: forms.lengths[i]]
        over = {"mean": np.arange(300), "first_last": pieces[-1:], "weighted:input=last": pieces[-1:]}.get(method, pieces)
        np.testing.assert_allclose(per_layer[i], before[over].mean(0), atol=1e-6)
    # Text of shared tokens alone computes what it computed, for them.
    ids = shared[target.byte_lengths[shared] > 0][:30]
    np.testing.assert_allclose(
        logits(output, ids)[:, shared], logits(base, forms.same[ids])[:, forms.same[shared]], rtol=1e-5, atol=1e-5
    )


def test_trim(base, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    output = zett.trim(base, tmp_path / "out", text=str(tmp_path / "text.txt"), pad_to_multiple_of=8)
    before, after = load_tokenizer(base), load_tokenizer(output, rows=10**6)
    ids, now = (vocab.tokenizer.encode(TEXT).ids for vocab in (before, after))
    main, per_layer = rows_of(output)
    assert len(main) < 300 and len(main) % 8 == 0
    old = np.asarray([before.tokenizer.token_to_id(after.tokenizer.id_to_token(i)) for i in range(len(after))])
    np.testing.assert_array_equal(per_layer[: len(old)], source_rows(base)[old])
    np.testing.assert_allclose(logits(output, now)[:, : len(old)], logits(base, ids)[:, old], rtol=1e-5, atol=1e-5)


def test_add_tokens(base, tmp_path):
    output = zett.add_tokens(base, tmp_path / "out", tokens=["Straße", "zett"], method="fvt", pad_to_multiple_of=8)
    main, per_layer = rows_of(output)
    ids = np.random.default_rng(1).integers(2, 300, 40)
    np.testing.assert_array_equal(per_layer[:300], source_rows(base))
    np.testing.assert_allclose(logits(output, ids)[:, :300], logits(base, ids), rtol=1e-5, atol=1e-5)
    target, size = load_tokenizer(output, rows=len(main)), len(load_tokenizer(output, rows=len(main)))
    forms = surface_forms(target, load_tokenizer(base), 64)
    for i in range(300, size):
        pieces = forms.pieces[i][: forms.lengths[i]]
        np.testing.assert_allclose(per_layer[i], source_rows(base)[pieces].mean(0), atol=1e-6)
    np.testing.assert_allclose(per_layer[size:], np.repeat(per_layer[:size].mean(0)[None], len(per_layer) - size, 0), atol=1e-6)


def test_what_cannot_make_them_says_so(base, tmp_path, target_folder):
    class Own(type(make_method("fvt"))):
        per_layer = False

    with pytest.raises(UserError, match=r"has a table for each layer .*of which the method .*Own.* makes no rows"):
        zett.transfer(base, target_folder, tmp_path / "out", method=Own())
    with pytest.raises(UserError, match="no rows; take one that mixes rows, such as fvt"):
        zett.add_tokens(base, tmp_path / "out", tokens=["zett"], method=Own())
    assert not (tmp_path / "out").exists()


def test_images_and_sounds_of_gemma_3n(tmp_path):
    """Its ids from `vocab_offset` on belong to other embeddings, by number."""
    edit_json(write(tmp_path, "Gemma3n") / "config.json", model_type="gemma3n")
    with pytest.raises(UserError, match=r"vocab_offset .*give its language model alone"):
        load_base_model(tmp_path, body=False)
