"""Target tokenizers that are trained on the spot."""

from pathlib import Path

import pytest
import tiny

from zett.data.sources import open_text
from zett.errors import UserError
from zett.evaluate import targets
from zett.evaluate.targets import load_target, named_targets, target_specs, trained_tokenizer


def test_targets_are_cached_and_follow_the_text(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path / "cache"))
    documents = open_text(corpus, split="train")
    folder = trained_tokenizer("bpe", 300, documents)
    with monkeypatch.context() as patch:
        patch.setattr(targets, "train_tokenizer", None)  # not needed a second time
        assert load_target("bpe-300", corpus).folder == folder
        assert load_target("bpe-300", documents).tokens == load_target(str(folder)).tokens
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")], "temporary folders are left"
    other = tmp_path / "prose" / "train.txt"
    other.parent.mkdir()
    other.write_text("quick brown foxes jump over lazy dogs. " * 200)
    prose = load_target("prose-bpe-300", corpus, prose=str(other.parent))
    assert any(b"quick" in token for token in prose.tokens)
    assert not any(b"quick" in token for token in load_target("bpe-300", corpus).tokens)


@pytest.mark.parametrize("spec", ["bpe8k", "bpe-", "unigram-8m", "prose-8k", "bpe-12"])
def test_a_misspelt_target_is_named(spec, corpus):
    with pytest.raises(UserError, match=f"{spec!r}"):
        load_target(spec, corpus)


def test_default_stands_for_the_default_targets():
    assert target_specs(["default", "gpt2", "bpe-8k"]) == [*targets.DEFAULT_TARGETS, "gpt2"]
    assert target_specs(None) == [*targets.DEFAULT_TARGETS]
    assert target_specs(Path("gpt2")) == ["gpt2"]


def test_names_are_as_short_as_they_can_be(tmp_path):
    for name in ("a/tok", "b/tok", "c/tik"):
        tiny.tokenizer_folder(tmp_path / name)
    specs = [str(tmp_path / "a" / "tok"), str(tmp_path / "b" / "tok"), str(tmp_path / "c" / "tik" / "tokenizer.json")]
    named = named_targets(specs, specs, lambda specs, **settings: specs)
    assert list(named) == [*specs[:2], "tik"]
    own = named["tik"]
    assert named_targets(own, [], iter) == {"tik": own} and named_targets({"mine": own}, [], iter) == {"mine": own}
