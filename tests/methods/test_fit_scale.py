"""How far predictions are followed, chosen on a little text."""

import json
import math

import encoders
import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file

from zett.config import HypernetConfig
from zett.errors import UserError
from zett.evaluate.tasks import reading_task
from zett.hypernet.network import make_hypernet
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms import load_base_model
from zett.methods import make_method, spec_of
from zett.methods.fit_scale import TEXT_BYTES, fit_scale, lowest, scaled, texts_of
from zett.methods.fvt import FVT
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import load_tokenizer

WORDS = "some more text for a tokenizer, text is a list of names\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(WORDS * 20)
    return file


@pytest.mark.parametrize(
    ("loss", "scale"),
    [
        (lambda s: (s - 0.8) ** 2 + 3, 0.8),
        (lambda s: (s - 1.3) ** 2 + (s - 1.3) ** 4, 1.3),
        (lambda s: 2 * s + s * s, 0.0),  # lowest beyond the range
        (lambda s: (s - 5.0) ** 2, 2.0),
        (lambda s: (s - 1.0) ** 2, 1.0),
        (lambda s: -((s - 0.9) ** 2), 1.5),  # a hill: the best that was tried
        (lambda s: 1.0, 1.0),
        (lambda s: abs(s - 1.0) - (0.6 < s < 1), 1.0),  # the parabola has its lowest place at 1
        (lambda s: 0.5 if s == 1 else math.nan, 1.0),
    ],
)
def test_the_lowest_place(loss, scale):
    tried = []
    found, before, after = lowest(lambda s: (tried.append(s), loss(s))[1])
    assert found == pytest.approx(scale, abs=0.08) and len(tried) == len(set(tried)) <= 4
    assert before == loss(1.0) and after == loss(found) <= before


def predicted_for(base, target, seed=0):
    """Rows that are FVT's and as large a change at random, which no text can want."""
    rng = np.random.default_rng(seed)

    def moved(rows):
        return None if rows is None else np.asarray(rows, np.float32) + rng.standard_normal(rows.shape).astype(np.float32)

    rows = FVT()(base, target)
    return EmbeddingTable.of(*map(moved, (rows.input, rows.output, rows.bias)))


@pytest.mark.parametrize("kind", ["untied", "tied", "bert"])
def test_a_table_reads_its_text_best(kind, text, target_folder, tmp_path):
    if kind == "bert":
        base = load_base_model(encoders.encoder_folder(tmp_path / "base", kind, max_position_embeddings=128))
    else:
        base = load_base_model(tiny.base_folder(tmp_path / "base", tied=kind == "tied"))
    target = load_tokenizer(target_folder)
    predicted, residual = predicted_for(base, target), FVT()(base, target)
    table, fit = fit_scale(base, target, predicted, text)
    assert fit.scale != 1 and fit.after < fit.before and fit.size == len(WORDS) * 20
    for name in ("input", "output", "bias"):
        rows, start, end = (getattr(one, name) for one in (table, residual, predicted))
        assert (rows is None) == (start is None)
        if rows is not None:
            between = np.asarray(start, np.float32) * (1 - fit.scale) + fit.scale * end
            np.testing.assert_allclose(rows, between, atol=1e-5)
    task = reading_task(base)
    items = task.items(base, texts_of(text, 512 if base.causal else 118))
    for one, bits in ((table, fit.after), (predicted, fit.before)):
        assert items.mean(task.score(base.with_vocabulary(one, target), items)) == pytest.approx(bits, rel=1e-6)
    # FVT's own rows have nothing to choose from.
    same, none = fit_scale(base, target, residual, text)
    assert same is residual and none.scale == 1 and none.before == none.after


@pytest.fixture(scope="module")
def hypernet(base_folder, tmp_path_factory):
    """One whose rows differ from FVT's."""
    base = load_base_model(base_folder)
    config = HypernetConfig(width=16, layers=1, heads=2, feed_forward=16)
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, 16, False, np.float32, 0))[1])
    params = jax.tree.map(lambda x: x + np.float32(0.1), params)
    trained = TrainedHypernet(config, params, 16, False, {"name": "tiny", "fingerprint": base.fingerprint})
    folder = tmp_path_factory.mktemp("hypernet") / "tiny"
    save_hypernet(folder, trained, base.vocab, {})
    return folder


def test_a_transfer_with_it(tmp_path, base_folder, target_folder, hypernet, text):
    output = transfer(base_folder, target_folder, tmp_path / "out", hypernet=hypernet, fit_scale=text)
    base, target = load_base_model(base_folder, dtype="auto"), load_tokenizer(target_folder)  # as the transfer reads it
    table, fit = fit_scale(base, target, load_hypernet(hypernet)(base, target), text)
    assert fit.scale != 1
    tensors = load_file(output / "model.safetensors")
    for name, rows in (("model.embed_tokens.weight", table.input), ("lm_head.weight", table.output)):
        np.testing.assert_array_equal(tensors[name], np.asarray(rows).astype(tensors[name].dtype))
    recorded = json.loads((output / "zett.json").read_text())
    found = next(x for x in (recorded, *recorded.values()) if isinstance(x, dict) and "fit_scale" in x)
    assert found["fit_scale"] == str(text) and found["scale"]["scale"] == pytest.approx(fit.scale, abs=0.01)
    card = (output / "README.md").read_text()
    assert f"| fitted | {fit.words()} |" in card and f"fit_scale={str(text)!r}" in card and "scaled=" not in card
    method = make_method(f"hypernet:{hypernet},fit_scale={text}")  # as `zett eval` takes it
    np.testing.assert_array_equal(method(base, target).input, table.input)
    assert make_method(spec_of(method)) == method and method.record(target)["scaled"] == fit.words()


def test_what_it_cannot_do(tmp_path, base_folder, target_folder, hypernet, text):
    (tmp_path / "empty.txt").write_text(" \n")
    where = base_folder, target_folder, tmp_path / "out"
    with pytest.raises(UserError, match=r"empty\.txt: no text"):
        transfer(*where, hypernet=hypernet, fit_scale=tmp_path / "empty.txt")
    with pytest.raises(UserError, match="none cannot be read: No such file"):
        transfer(*where, hypernet=hypernet, fit_scale=tmp_path / "none")
    with pytest.raises(UserError, match=r"fit_scale is .*, but the method 'fvt' makes no use of it"):
        transfer(*where, method="fvt", fit_scale=text)
    config = json.loads((base_folder / "config.json").read_text())
    unported = tmp_path / "unported"
    unported.mkdir()
    for file in base_folder.iterdir():
        if file.is_file():
            (unported / file.name).write_bytes(file.read_bytes())
    (unported / "config.json").write_text(json.dumps(config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(UserError, match="mamba"):
        transfer(unported, target_folder, tmp_path / "out", hypernet=hypernet, fit_scale=text)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="was read without its body"):
        base = load_base_model(base_folder, body=False)
        fit_scale(base, load_tokenizer(target_folder), FVT()(base, load_tokenizer(target_folder)), text)


def test_output_rows_of_their_own_are_scaled_too():
    """Of a tied model, whose input rows they are corrections of."""
    tied, made = EmbeddingTable.of(np.full((3, 2), 1.0)), EmbeddingTable.of(np.full((3, 2), 2.0), np.full((3, 2), 5.0))
    between = scaled(tied, made, 0.5)
    assert (between.input == 1.5).all() and (between.output == 3.0).all()


def test_no_more_text_than_it_needs(tmp_path):
    (tmp_path / "long.txt").write_text("".join(f"line {i} of a long text\n" for i in range(5000)))
    windows = texts_of(tmp_path / "long.txt")
    assert TEXT_BYTES - 1024 < sum(map(len, windows)) <= TEXT_BYTES
    assert "line 0 " not in "".join(windows) or "line 4999 " not in "".join(windows)
    assert int(windows[-1].split()[1]) - int(windows[0].split()[1]) > 4000
