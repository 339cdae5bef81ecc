"""Special tokens of a transferred model: ids in its configs, and tokenizers that take over the base model's."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from zett.choices import MODES
from zett.errors import UserError
from zett.values import nearest
from zett.vocab.bytes import RESERVED_TOKEN
from zett.vocab.load import load_tokenizer
from zett.vocab.pairing import PRECEDENCE, ROLES, Pair, added_tokens, find_pairs, followed_ends, structural
from zett.vocab.prompts import chat_template

if TYPE_CHECKING:
    from zett.vocab.vocabulary import Vocabulary

# Generation settings that name tokens by ids of the old vocabulary. They would mean other tokens now, so they are left out.
OLD_TOKEN_SETTINGS = [
    "bad_words_ids", "force_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids",
]  # fmt: skip


def follow_ids(settings: dict, target: "Vocabulary", source: "Vocabulary", *, several: bool = False) -> dict:
    """A config of the source model with the target's ids as bos_token_id and the like, in nested configs too.

    A role that the target does not name gets the target's token with the same text as the source's, or None if there is none;
    eos gets the first token that ends a text where the source's does. A list of ids, as models may have for eos, becomes the
    target's token of that role followed by all tokens that end a text where the listed ones do. several: whether a single eos
    id becomes such a list, too.
    """
    keys = {f"{role}_token_id": role for role in ROLES}
    followed = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            value = follow_ids(value, target, source)
        elif role := keys.get(key):
            if isinstance(value, list) or role == "eos":
                ids = followed_ends(value if isinstance(value, list) else [value], target, source)
                value = ids if len(ids) > 1 and (isinstance(value, list) or several) else next(iter(ids), None)
            else:
                value = target.roles.get(role, of_same_text(role, target, source))
        followed[key] = value
    return followed


def of_same_text(role: str, target: "Vocabulary", source: "Vocabulary") -> int | None:
    """The target's id for the text of the token that has this role in the source; None if the target lacks that text."""
    theirs = source.roles.get(role)
    return next((i for i, p in find_pairs(target, source).items() if p.source == theirs and p.reason == "same text"), None)


# -------------------------------------------------------------------------------------------------------------- adapting


def check_mode(mode: str) -> None:
    """UserError unless `mode` is one of MODES."""

    if mode not in MODES:
        raise UserError(f"special {mode!r} does not exist; {nearest(mode, MODES)}")


def adapt_special(target: "Vocabulary", source: "Vocabulary", mode: str, folder: Path) -> "Vocabulary":
    """The target with the special tokens that `mode`, one of MODES, asks for.

    Its files are written to `folder`; with keep-target, nothing is.

    Raises UserError if the tokenizers library does not take the result.
    """
    import tokenizers

    if mode == "keep-target":
        return target
    spec = json.loads(target.tokenizer.to_str())
    pairs = find_pairs(target, source)
    renames = _renames(target, source, pairs) if mode == "map-to-source" else {}
    _rename(spec, renames)
    ids = {renames.get(text, text): i for text, i in target.tokenizer.get_vocab().items()}
    theirs = {token["content"]: token for token in json.loads(source.tokenizer.to_str())["added_tokens"]}
    known = {token["content"] for token in spec["added_tokens"]}
    for text in _missing(target, source, mode, pairs, set(renames.values())):
        if text not in known:
            ids.setdefault(text, max(len(target), *(i + 1 for i in ids.values())))
            plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            spec["added_tokens"].append({"content": text, **plain, **theirs.get(text, {}), "id": ids[text]})
    if isinstance(spec["model"]["vocab"], dict):
        # The library gives an added token the next free id, unless the model's vocabulary has it, too: so it is put there.
        spec["model"]["vocab"] |= {token["content"]: token["id"] for token in spec["added_tokens"]}
    if mode == "map-to-source":
        spec["post_processor"] = _framing(spec.get("post_processor"), json.loads(source.tokenizer.to_str()), ids)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"special={mode!r} makes a tokenizer that cannot be loaded: {error}") from None
    wrong = {text: i for text, i in ids.items() if tokenizer.token_to_id(text) != i}
    if wrong:
        raise UserError(f"special={mode!r} cannot be done: {min(wrong)!r} would not get the id {wrong[min(wrong)]}")
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_config(folder, target, source, mode, tokenizer)
    return dataclasses.replace(load_tokenizer(folder), mapped=target.mapped)


def _missing(target: "Vocabulary", source: "Vocabulary", mode: str, pairs: dict[int, Pair], renamed: set[str]) -> list[str]:
    """The texts of the source's tokens that the target lacks and has to get, in the order of their source ids."""
    theirs = added_tokens(source) | structural(source)
    used = {pair.source for pair in pairs.values()}
    texts = {t for t, i in structural(source).items() if (t not in renamed if mode == "map-to-source" else i not in used)}
    texts = {text for text in texts if not RESERVED_TOKEN.fullmatch(text)}
    origin = _template_folder(target, source, mode)
    if origin is not None and origin == source.folder:
        # A chat template spells tokens by their texts, so a counterpart with another text does not help.
        texts |= {text for text in theirs if text in (chat_template(origin) or "")}
    return sorted(texts, key=theirs.__getitem__)


def _template_folder(target: "Vocabulary", source: "Vocabulary", mode: str) -> Path | None:
    """The folder whose chat template the adapted tokenizer gets. With add-missing the target's own comes first."""
    folders = [target.folder, source.folder] if mode == "add-missing" else [source.folder, target.folder]
    return next((folder for folder in folders if chat_template(folder) is not None), None)


def _renames(target: "Vocabulary", source: "Vocabulary", pairs: dict[int, Pair]) -> dict[str, str]:
    """From the text of each paired target token to the text of its source partner, which no two tokens may get."""
    text_of = {i: text for text, i in structural(source).items()}
    rank = {target.roles[role]: n for n, role in reversed(list(enumerate(PRECEDENCE))) if role in target.roles}
    # Of several tokens that could get a text, one that has it already comes first, then those with a role.
    paired = [(i, text) for text, i in structural(target).items() if i in pairs]
    renames: dict[str, str] = {}
    for i, text in sorted(paired, key=lambda token: (pairs[token[0]].reason != "same text", rank.get(token[0], len(rank)))):
        new = text_of.get(pairs[i].source, "")
        if pairs[i].same and new not in ("", *renames.values()) and target.tokenizer.token_to_id(new) in (None, i):
            renames[text] = new
    return renames


def _rename(spec: dict, renames: dict[str, str]) -> None:
    for token in spec["added_tokens"]:
        token["content"] = renames.get(token["content"], token["content"])
    model = spec["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renames.get(text, text): i for text, i in model["vocab"].items()}
    else:
        model["vocab"] = [[renames.get(text, text), score] for text, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = renames.get(model["unk_token"], model["unk_token"])


def _framing(own: dict | None, source_spec: dict, ids: dict[str, int]) -> dict | None:
    """A post-processor that puts the source's tokens around a text, with the ids that they have in the target."""
    parts = [p for p in _processors(own) if p["type"] == "ByteLevel"]
    for processor in _processors(source_spec.get("post_processor")):
        processor = copy.deepcopy(processor)
        if processor["type"] == "ByteLevel":
            continue
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [ids[text] for text in token["tokens"]]
        for role in {"cls", "sep"} & processor.keys():
            processor[role] = [processor[role][0], ids[processor[role][0]]]
        parts.append(processor)
    return {"type": "Sequence", "processors": parts} if len(parts) > 1 else next(iter(parts), None)


def _processors(processor: dict | None) -> list[dict]:
    if processor is None:
        return []
    return processor["processors"] if processor["type"] == "Sequence" else [processor]


def _write_config(folder: Path, target: "Vocabulary", source: "Vocabulary", mode: str, tokenizer) -> None:
    """tokenizer_config.json and the chat template."""
    given = target.folder / "tokenizer_config.json" if target.folder is not None else folder / "absent"
    config: dict = {"clean_up_tokenization_spaces": False}
    if given.is_file():
        config = json.loads(given.read_text(encoding="utf-8"))
    for key in (
        "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "chat_template", "add_bos_token",
        "add_eos_token", "tokenizer_file", "backend",
    ):  # fmt: skip
        config.pop(key, None)
    # The class of a model family may rebuild the tokenizer by rules of its own; this class takes tokenizer.json as it is.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    mine = {role: tokenizer.id_to_token(i) for role, i in target.roles.items()}
    theirs = {role: source.tokenizer.id_to_token(i) for role, i in source.roles.items()}
    theirs = {role: text for role, text in theirs.items() if tokenizer.token_to_id(text) is not None}
    roles = _merged_roles(theirs, mine, source) if mode == "map-to-source" else _merged_roles(mine, theirs, source)
    for role in ROLES:
        config.pop(f"{role}_token", None)
    config |= {f"{role}_token": text for role, text in roles.items()}
    if not takes_token_types(source.folder):
        names = config.get("model_input_names", ["input_ids", "attention_mask"])
        config["model_input_names"] = [name for name in names if name != "token_type_ids"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    origin = _template_folder(target, source, mode)
    if origin is None:
        return
    if (origin / "chat_template.jinja").is_file():
        shutil.copyfile(origin / "chat_template.jinja", folder / "chat_template.jinja")
    else:
        (folder / "chat_template.jinja").write_bytes((chat_template(origin) or "").encode())


def _merged_roles(first: dict[str, str], second: dict[str, str], source: "Vocabulary") -> dict[str, str]:
    """The roles of `first`, and those of `second` that it lacks. bos and eos or pad share a token only if the source's do."""
    merged = dict(first)
    for role, text in second.items():
        others = ("eos", "pad") if role == "bos" else ("bos",) if role in ("eos", "pad") else ()
        one = [o for o in others if merged.get(o) == text and source.roles.get(o, -1) != source.roles.get(role, -2)]
        if not one:
            merged.setdefault(role, text)
    return merged


def takes_token_types(model: Path | None) -> bool:
    """Whether a model takes `token_type_ids`, by its config.json; True if it has none that could say no."""
    file = model / "config.json" if model is not None else None
    if file is None or not file.is_file():
        return True
    config = json.loads(file.read_text(encoding="utf-8"))
    # These two models mark the tokens of images with them.
    return "type_vocab_size" in config or config.get("model_type") in ("gemma3", "paligemma")
