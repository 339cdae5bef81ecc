"""A model that drafts for another one (speculative decoding): the sizes and ids that clients compare between the two.

vLLM takes a draft model only if `vocab_size` is the same in both configs (0.33: or if it is told `use_heterogeneous_vocab`;
then it drafts what both have). llama.cpp takes one whose vocabulary is at most 128 tokens smaller or larger, and has the same
token texts from id 5 on. Here the sizes are made the same, and the texts have to be.
"""

import dataclasses
from pathlib import Path

from zett.errors import UserError
from zett.files.jsonfile import json_or_empty, read_json
from zett.gguf import find_gguf
from zett.gguf.config import special_ids
from zett.gguf.header import read_header
from zett.lms.base import BaseModel, check_causal
from zett.lms.unported import vocabulary_config
from zett.progress import say
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.prompts import chat_template

FIRST_COMPARED = 5  # llama.cpp does not compare the texts of the ids before it
ROLES = ("bos", "eos", "pad")


@dataclasses.dataclass(frozen=True)
class Like:
    """What a draft model takes over from the model that it drafts for, which is called `name`.

    rows: of its embedding table, padding included: `vocab_size` in its config. config, generation: its config.json (the part
    of the language model) and generation_config.json.
    """

    name: str
    vocab: Vocabulary
    rows: int
    config: dict
    generation: dict

    def check(self, base: BaseModel, given: Vocabulary, special: str) -> str:
        """What was checked of a draft made of `base` with the tokenizer `given`, in words. UserError unless it would work."""
        check_causal(base)
        if special != "keep-target":
            raise UserError(
                f"special is {special!r}, which changes the tokenizer, but a model that drafts for {self.name} needs the same "
                "tokens; leave it out, and give such tokens rows with map (--map TOKEN=TEXT)"
            )
        wrong = different_ids(given, self.vocab)
        if late := [i for i in wrong if i >= FIRST_COMPARED]:
            ours, theirs = (_shown(vocab, late[0]) for vocab in (given, self.vocab))
            raise UserError(
                f"the token {late[0]} is {ours} in the tokenizer, but {theirs} in that of {self.name} (like), {len(late):,} in "
                "all differ; a model that drafts for it needs the same tokens; give its own tokenizer"
            )
        padding = f", {self.rows - len(given):,} of them padding" if self.rows > len(given) else ""
        but = f" but for {', '.join(map(str, wrong))}" if wrong else ""
        return (
            f"{self.rows:,} rows, as its vocab_size says{padding} (vLLM takes equal sizes only, llama.cpp up to 128 "
            f"apart); {len(given):,} tokens have the same texts{but} (llama.cpp compares them from id {FIRST_COMPARED} on)"
        )

    def follow(self, settings: dict, theirs: dict, target: Vocabulary) -> dict:
        """A config of the draft with the ids of roles that `theirs`, that config of this model, has; in nested ones, too.

        Where this model's config contradicts its tokenizer, the tokenizer counts, as it does in llama.cpp's files.
        """
        followed = {key: self.follow(v, theirs, target) if isinstance(v, dict) else v for key, v in settings.items()}
        for role in ROLES:
            key = f"{role}_token_id"
            value, own = theirs.get(key), target.roles.get(role)
            ids = value if isinstance(value, list) else [value]
            if key in settings and all(type(i) is int and 0 <= i < self.rows for i in ids) and own in (None, *ids):
                followed[key] = value
        return followed

    def write_template(self, folder: Path) -> None:
        """Write this model's chat template into a draft's `folder`, if another one or none is there."""
        own = chat_template(self.vocab.folder)
        if own is not None and chat_template(folder) != own:
            say(f"the chat template is that of {self.name}")
            (folder / "chat_template.jinja").write_bytes(own.encode())


def read_like(name: str | Path) -> Like:
    """What a model called `name` asks of its drafts: a folder, a GGUF file or a name on the Hub. No weights are needed.

    UserError if it does not say how many rows it has, or has fewer than its tokenizer has tokens.
    """
    vocab, file = load_tokenizer(name), find_gguf(name)
    if file is not None:
        header = read_header(file)
        embeddings = header.tensors.get("token_embd.weight")
        config = {"vocab_size": embeddings.shape[0] if embeddings else len(vocab), **special_ids(header)}
        generation: dict = {}
    else:
        folder = vocab.folder or Path(name)
        if not (folder / "config.json").is_file():
            raise UserError(f"like {name}: {folder} has no config.json, which says how many rows the model has; put it there")
        config = vocabulary_config(read_json(folder / "config.json"), folder / "config.json")
        generation = json_or_empty(folder / "generation_config.json")
    rows = config["vocab_size"]
    if type(rows) is not int or rows < 1:
        raise UserError(f"like {name}: vocab_size in its config.json is {rows!r}; it has to be a whole number, at least 1")
    if len(vocab) > rows:
        vocab = load_tokenizer(name, rows=rows)
    if len(vocab) > rows:
        raise UserError(f"like {name}: its tokenizer has {len(vocab):,} tokens, and vocab_size in its config.json is {rows:,}")
    return Like(str(name), vocab, rows, config, generation)


def different_ids(one: Vocabulary, other: Vocabulary) -> list[int]:
    """Ids that are not the same token in both tokenizers, or are a token in one of them only."""
    ours, theirs = (_texts(vocab) for vocab in (one, other))
    size = max(len(ours), len(theirs))
    ours, theirs = (texts + [None] * (size - len(texts)) for texts in (ours, theirs))
    return [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]


def check_same_ids(draft: Vocabulary, big: Vocabulary, names: tuple[str, str]) -> None:
    """UserError unless both tokenizers have the same tokens with the same ids; names: of the two models."""
    if wrong := different_ids(draft, big):
        i = wrong[0]
        raise UserError(
            f"{names[0]} cannot draft for {names[1]}: {len(wrong):,} ids differ, the first is {i}, {_shown(draft, i)} and "
            f"{_shown(big, i)}; transfer it with --tokenizer {names[1]} --like {names[1]}"
        )


def _texts(vocab: Vocabulary) -> list[str | None]:
    return [vocab.tokenizer.id_to_token(i) for i in range(len(vocab))]


def _shown(vocab: Vocabulary, i: int) -> str:
    text = vocab.tokenizer.id_to_token(i) if i < len(vocab) else None
    return "absent" if text is None else repr(text)
