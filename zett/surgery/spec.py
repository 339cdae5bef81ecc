"""A tokenizer's files with a `VocabularyEdit` applied: every id and every text in them."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zett.errors import UserError
from zett.files.folders import copy_files, found
from zett.files.jsonfile import json_or_empty, write_json
from zett.surgery.edit import VocabularyEdit
from zett.surgery.pieces import edited_pieces
from zett.vocab import Vocabulary

COPIED = ["chat_template*", "additional_chat_templates"]  # which spell tokens by their texts
# Forms of a vocabulary that some programs read. They would have the tokens of before, so most are left out.
STALE = ["vocab.json", "vocab.txt", "merges.txt", "*.model", "*.spm", "*.tiktoken"]


def read_spec(vocab: Vocabulary) -> dict:
    """tokenizer.json as it is, or what the tokenizer was converted to; with the tokens that only other files name."""
    file = None if vocab.folder is None else vocab.folder / "tokenizer.json"
    whole = json.loads(vocab.tokenizer.to_str())
    if file is None or not file.is_file():
        return whole
    spec = json.loads(file.read_text(encoding="utf-8"))
    known = {token["content"] for token in spec.get("added_tokens") or []}
    spec["added_tokens"] = [*(spec.get("added_tokens") or []), *(t for t in whole["added_tokens"] if t["content"] not in known)]
    spec["model"].setdefault("type", whole["model"]["type"])  # old files lack it
    return spec


def spec_ids(spec: dict) -> set[int]:
    """The ids that a tokenizer.json needs beside its vocabulary: of its post-processor, its padding, its unknown token."""
    parts = list(_processors(spec.get("post_processor")))
    found = {i for part in parts for ids in _lists_of_ids(part) for i in ids}
    found |= {part[role][1] for part in parts for role in {"cls", "sep"} & part.keys()}
    if spec.get("padding"):
        found.add(spec["padding"]["pad_id"])
    if spec["model"].get("unk_id") is not None:
        found.add(spec["model"]["unk_id"])
    return found


def edit_spec(spec: dict, edit: VocabularyEdit) -> dict:
    """A tokenizer.json after the edit. UserError if something in it needs a token that went."""
    spec = copy.deepcopy(spec)
    model = spec["model"]
    added = [token | {"id": edit.id(token["id"])} for token in spec["added_tokens"] if edit.id(token["id"]) is not None]
    spec["added_tokens"] = sorted(added, key=lambda token: token["id"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = _edited_texts(model["vocab"], added, edit)
        if "merges" in model:
            model["merges"] = _edited_merges(model, edit)
    else:
        model["vocab"] = _edited_pieces(model["vocab"], added, edit)
    if model.get("unk_id") is not None:
        model["unk_id"] = _needed(model["unk_id"], edit, "the unknown token")
    for part in _processors(spec.get("post_processor")):
        for ids in _lists_of_ids(part):
            ids[:] = [_needed(i, edit, "a token that its post-processor adds") for i in ids]
        for role in {"cls", "sep"} & part.keys():
            part[role] = [part[role][0], _needed(part[role][1], edit, f"{role} of its post-processor")]
    if spec.get("padding"):
        spec["padding"]["pad_id"] = _needed(spec["padding"]["pad_id"], edit, "its padding")
    return spec


def _edited_texts(vocab: dict[str, int], added: list[dict], edit: VocabularyEdit) -> dict[str, int]:
    """A BPE's, WordPiece's or WordLevel's vocabulary, by id."""
    ids = {text: edit.id(i) for text, i in vocab.items()}
    kept = {text: i for text, i in ids.items() if i is not None} | {text: i for i, text in edit.new.items()}
    beside = {token["content"]: token["id"] for token in added if token["content"] not in kept}
    # The library numbers added tokens from the model's size on, unless the model has them, too: so it gets them, where needed.
    if sorted(beside.values()) != list(range(len(kept), len(kept) + len(beside))):
        kept |= beside
    return dict(sorted(kept.items(), key=lambda item: item[1]))


def _edited_merges(model: dict, edit: VocabularyEdit) -> list:
    """Those whose parts and product are there, in their order, and the new ones."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    vocab, kept = model["vocab"], []
    for merge in model["merges"]:
        a, b = merge.split(" ") if isinstance(merge, str) else merge
        if a in vocab and b in vocab and a + b[prefix:] in vocab:
            kept.append(merge)
    if not edit.merges:
        return kept
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in kept] + [list(merge) for merge in edit.merges]


def _edited_pieces(vocab: list, added: list[dict], edit: VocabularyEdit) -> list:
    """A Unigram's pieces, whose places are their ids."""
    pieces = {new: entry for i, entry in enumerate(vocab) if (new := edit.id(i)) is not None}
    pieces |= {i: [text, edit.scores[text]] for i, text in edit.new.items()}
    lowest = min(score for _, score in vocab)
    beside = {token["id"]: [token["content"], lowest] for token in added}
    size = max(pieces) + 1
    # Added tokens that stood after the pieces get places among them, which are never used: they are cut out of a text before.
    return [pieces[i] if i in pieces else beside[i] for i in range(size)]


def _needed(old: int, edit: VocabularyEdit, what: str) -> int:
    new = edit.id(old)
    if new is None:
        raise UserError(f"the tokenizer needs the id {old} for {what}, and it would go; keep it")
    return new


def _processors(processor: dict | None) -> Iterator[dict]:
    if processor is not None:
        if processor["type"] == "Sequence":
            for part in processor["processors"]:
                yield from _processors(part)
        else:
            yield processor


def _lists_of_ids(processor: dict) -> Iterator[list[int]]:
    for token in (processor.get("special_tokens") or {}).values():
        yield token["ids"]


# ------------------------------------------------------------------------------------------------------------- the files


def write_tokenizer(folder: Path, vocab: Vocabulary, edit: VocabularyEdit) -> list[str]:
    """Write the edited tokenizer's files into `folder`; returns the names of files that were left out, since they are stale.

    UserError if the tokenizers library does not number the tokens as the edit says.
    """
    import tokenizers

    spec = edit_spec(read_spec(vocab), edit)
    try:
        made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"the edited tokenizer cannot be loaded: {error}") from None
    expected = {text: edit.id(i) for text, i in vocab.tokenizer.get_vocab().items()} | {t: i for i, t in edit.new.items()}
    wrong = {text for text, i in expected.items() if made.token_to_id(text) != i}
    if wrong:
        text = min(wrong)
        raise UserError(f"the token {text!r} would get the id {made.token_to_id(text)} instead of {expected[text]}")
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=2), encoding="utf-8")
    source = vocab.folder
    known = set(made.get_vocab())
    config = json_or_empty(source / "tokenizer_config.json") if source is not None else {}
    if not config:
        special = {f"{role}_token": vocab.tokenizer.id_to_token(i) for role, i in vocab.roles.items()}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    write_json(folder / "tokenizer_config.json", _edited_config(config, known, edit))
    if source is None:
        return []
    if special := json_or_empty(source / "special_tokens_map.json"):
        write_json(folder / "special_tokens_map.json", _edited_config(special, known, edit))
    if (source / "added_tokens.json").is_file():
        ids = {text: edit.id(i) for text, i in json_or_empty(source / "added_tokens.json").items() if isinstance(i, int)}
        write_json(folder / "added_tokens.json", {text: i for text, i in ids.items() if i is not None})
    copy_files(found(source, COPIED), folder)
    left_out = []
    for path in found(source, STALE):
        content = edited_pieces(path, vocab.tokenizer.get_vocab(), edit) if path.suffix in (".model", ".spm") else None
        if content is None:
            left_out.append(path.name)
        else:
            (folder / path.name).write_bytes(content)
    return left_out


def _edited_config(config: dict, known: set[str], edit: VocabularyEdit) -> dict:
    """tokenizer_config.json and special_tokens_map.json: tokens by id, lists of texts, and ids."""
    edited: dict[str, Any] = {}
    for key, value in config.items():
        if key == "added_tokens_decoder" and isinstance(value, dict):
            value = {str(edit.id(int(i))): token for i, token in value.items() if edit.id(int(i)) is not None}
        elif key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
            value = [token for token in value if (token["content"] if isinstance(token, dict) else token) in known]
        elif key.endswith("_token_id") and isinstance(value, int):
            value = edit.id(value)
        edited[key] = value
    return edited
