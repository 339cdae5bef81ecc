"""Whether a hypernetwork can be a base model's, as far as two small files tell: before weights are read and JAX is loaded."""

from collections.abc import Mapping
from pathlib import Path

from zett.errors import UserError
from zett.files import hub
from zett.files.jsonfile import json_or_empty
from zett.files.resolve import BASE_MODEL, HYPERNETWORK, SOURCE_TOKENIZER, local

WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")  # of rows, as model types call it in config.json
SHARED = 0.5  # of the smaller vocabulary, what has to have the same ids; a new version of a tokenizer changes a few


class AnotherModel(UserError):
    """A hypernetwork is for another base model. why: what is different, which ends the message."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what}: {why}")
        self.why = why


def check_belongs(model: str | Path, hypernet: str | Path) -> None:
    """UserError if the hypernetwork was clearly trained for another base model: other widths, other tokenizers.

    Nothing is said of what is not on this machine, cannot be read, or differs in the rows alone: loading finds that out.
    """
    base, folder = local(model, BASE_MODEL), local(hypernet, HYPERNETWORK)
    config, own = json_or_empty(folder / "config.json"), _config_of(base)
    described = found if isinstance(found := config.get("base"), dict) else config
    what = f"the hypernetwork {folder} was trained for the base model {described.get('name')!r}, and {model} is another"
    width = next((own[name] for name in WIDTHS if isinstance(own.get(name), int)), None)
    wanted = config.get("hidden_size" if "hypernet" in config else "n_embd")  # a published one has a hidden_size of its own
    if isinstance(wanted, int) and width is not None and width != wanted:
        raise AnotherModel(what, f"it has rows of width {width}, not {wanted}")
    tied, their_tied = own.get("tie_word_embeddings"), config.get("tied")
    if isinstance(tied, bool) and isinstance(their_tied, bool) and tied != their_tied:
        raise AnotherModel(what, f"its output rows are {'' if tied else 'not '}its input rows")
    # The authors of ZeTT put a tokenizer of byte level in the place of the base model's, which spells tokens otherwise.
    files = [folder / SOURCE_TOKENIZER / "tokenizer.json", base / "tokenizer.json"]
    if "hypernet" not in config or not all(file.is_file() for file in files) or files[0].read_bytes() == files[1].read_bytes():
        return
    theirs, ours = map(_ids, files)
    smaller = min(len(theirs), len(ours))
    if smaller and (same := len(theirs.items() & ours.items())) < SHARED * smaller:
        raise AnotherModel(what, f"of {smaller:,} tokens of its tokenizer, {same:,} are the same with the same ids")


def shipped_candidates(model: str | Path) -> list[str]:
    """Names of the hypernetworks in the package that may be for `model`, as far as small files tell. UserError if none may.

    A model on the Hub that is not on this machine is not downloaded for it, but for these files.
    """
    folder = local(model, BASE_MODEL)
    if not folder.exists() and hub.is_name(str(model)):
        folder = hub.download(str(model), ("config.json", "tokenizer.json"), what="base model")
    refused: dict[str, str] = {}
    for name in HYPERNETWORK.packaged:
        try:
            check_belongs(folder, name)
        except AnotherModel as error:
            refused[name] = error.why
    found = [name for name in HYPERNETWORK.packaged if name not in refused]
    if not found:
        raise none_fits(str(model), refused)
    return found


def none_fits(model: str, refused: Mapping[str, str]) -> AnotherModel:
    """The error for a model without a hypernetwork of its own. refused: why not, of each of those in the package."""
    return AnotherModel(
        f"method 'hypernet' needs a hypernetwork made for {model}: give its folder (--hypernet DIR, or hypernet:DIR), or take "
        "a method that needs none, such as fvt; in the package",
        "; ".join(f"{name} ({why})" for name, why in refused.items()),
    )


def _config_of(model: Path) -> dict:
    """Its config.json; of a GGUF file, which is converted later, the width alone; {} for what cannot be read."""
    from zett.gguf import find_gguf  # takes NumPy, which --help does without
    from zett.gguf.header import read_header

    try:
        file = find_gguf(model)
        if file is None:
            return json_or_empty(model / "config.json")
        values = read_header(file).values
        return {"hidden_size": values.get(f"{values.get('general.architecture')}.embedding_length")}
    except UserError:
        return {}


def _ids(file: Path) -> dict[str, int]:
    """Id by token of a tokenizer.json, as its model spells tokens."""
    model = json_or_empty(file).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pieces with their scores
        return {str(entry[0]): i for i, entry in enumerate(vocab) if isinstance(entry, list) and entry}
    return {token: i for token, i in vocab.items() if isinstance(i, int)} if isinstance(vocab, dict) else {}
