"""What is said of a run before it starts: evaluation targets that are not there."""

import pytest

from zett.config import from_dict
from zett.errors import UserError
from zett.plan.checks import check_inputs
from zett.train.run import train


@pytest.mark.parametrize(
    ("targets", "messages"),
    [
        (("bpe8k", "no/such/folder"), ["'bpe8k'", r"config\.train\.eval_targets names 'no/such/folder'"]),
        (("bpe-999999999k",), ["asks for 999999999k entries"]),
        (("EMPTY",), ["holds no tokenizer"]),
        ((), [r"config\.train\.eval_targets is empty; name a tokenizer"]),
    ],
)
def test_targets_of_a_run_are_looked_for_before_it_starts(targets, messages, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [str(tmp_path / "empty") if target == "EMPTY" else target for target in targets]
    config = from_dict({"recipe": "hypernet", "train": {"eval_targets": given}})
    for message in messages:
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_targets_on_the_hub_are_looked_for_as_well(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_, **__):
        raise LocalEntryNotFoundError("cannot be reached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="there is no folder 'someone/typo', and on the Hugging Face Hub"):
        train(from_dict({"train": {"eval_targets": ["someone/typo"]}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_language_model_is_trained_without_targets():
    check_inputs(from_dict({"recipe": "lm", "train": {"eval_targets": ["no/such/folder"]}}))
