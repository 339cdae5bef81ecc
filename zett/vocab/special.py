"""Special tokens: their roles, their partners in another vocabulary, and tokenizers that take over the base model's."""

import copy
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from zett.errors import UserError
from zett.vocab.bytes import RESERVED_TOKEN

if TYPE_CHECKING:
    from zett.vocab.vocabulary import Vocabulary

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")

# Names of special tokens by role, for tokenizers that do not declare roles.
WELL_KNOWN = {
    "bos": ("<s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "[EOS]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
}

# Tokens that structure chats, tool calls, images and code: what they do -> the names that model makers gave them.
MARKERS = {
    "turn start": (
        "<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|turn>", "<|header_start|>", "<|start_of_role|>",
        "<|START_OF_TURN_TOKEN|>", "<|start|>", "[INST]",
    ),
    "turn header end": ("<|end_header_id|>", "<|header_end|>", "<|end_of_role|>", "<|im_sep|>", "<|message|>"),
    "turn end": (
        "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>", "<|end|>", "[/INST]",
    ),
    "system": ("<|system|>", "<|SYSTEM_TOKEN|>", "[SYSTEM_PROMPT]", "<<SYS>>"),
    "system end": ("[/SYSTEM_PROMPT]", "<</SYS>>"),
    "user": ("<|user|>", "<|USER_TOKEN|>", "<｜User｜>"),
    "assistant": ("<|assistant|>", "<|CHATBOT_TOKEN|>", "<｜Assistant｜>"),
    "tools": ("<tools>", "[AVAILABLE_TOOLS]", "<|tool_list|>"),
    "tools end": ("</tools>", "[/AVAILABLE_TOOLS]"),
    "tool call": ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>", "<｜tool▁call▁begin｜>"),
    "tool call end": ("</tool_call>", "<|eom_id|>", "<|eom|>", "<｜tool▁call▁end｜>"),
    "tool result": ("<tool_response>", "[TOOL_RESULTS]", "<|tool_response|>", "<｜tool▁output▁begin｜>"),
    "tool result end": ("</tool_response>", "[/TOOL_RESULTS]", "<｜tool▁output▁end｜>"),
    "thinking": ("<think>", "[THINK]", "<|start_thinking|>", "<|START_THINKING|>"),
    "thinking end": ("</think>", "[/THINK]", "<|end_thinking|>", "<|END_THINKING|>"),
    "image": ("<image>", "<|image|>", "<|image_pad|>", "<image_soft_token>", "[IMG]"),
    "image start": ("<|vision_start|>", "<start_of_image>", "<|image_start|>"),
    "image end": ("<|vision_end|>", "<end_of_image>", "<|image_end|>", "[IMG_END]"),
    "audio": ("<audio>", "<|audio|>", "<|AUDIO|>", "<audio_soft_token>", "[AUDIO]"),
    "video": ("<video>", "<|video|>", "<|video_pad|>"),
    "code prefix": ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "▁<PRE>", "<PRE>", "[PREFIX]", "<｜fim▁begin｜>"),
    "code suffix": ("<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "▁<SUF>", "<SUF>", "[SUFFIX]", "<｜fim▁hole｜>"),
    "code middle": ("<|fim_middle|>", "<fim_middle>", "<fim-middle>", "▁<MID>", "<MID>", "[MIDDLE]", "<｜fim▁end｜>"),
    "repository": ("<|repo_name|>", "<repo_name>", "<reponame>"),
    "file": ("<|file_sep|>", "<file_sep>", "<filename>"),
}  # fmt: skip
_MARKER_OF = {name: marker for marker, names in MARKERS.items() for name in names}

# What stands in for a role that the source has no token for, in order.
_STAND_INS = {
    "bos": ("bos", "cls", "eos"),
    "eos": ("eos", "sep", "bos"),
    "cls": ("cls", "bos"),
    "sep": ("sep", "eos"),
    "pad": ("pad", "eos"),
    "unk": ("unk",),
    "mask": ("mask",),
    "turn start": ("bos", "cls"),
    "turn end": ("eos", "sep"),
}
# What in a chat template looks like a special token.
_IN_TEMPLATE = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|<(?:start|end)_of_\w+>|</?tool_\w+>|\[/?[A-Z]+(?:_[A-Z]+)*\]")

MODES = {
    "keep-target": "the tokenizer's files exactly as given",
    "map-to-source": "the base model's special tokens, what it puts around a text, and its chat template: paired tokens are "
    "renamed, the rest is appended as new ids; prompts made for the base model keep working",
    "add-missing": "the base model's special tokens that have no counterpart are appended as new ids",
}


# --------------------------------------------------------------------------------------------------------------- pairing


def pair_special(target: "Vocabulary", source: "Vocabulary") -> dict[int, int]:
    """Source id for each special target id: the token with the same text, else with the same or the nearest role."""
    theirs = _structural(source)
    markers = {marker: theirs[name] for name, marker in reversed(_MARKER_OF.items()) if name in theirs}
    pairs = {}
    for text, i in _structural(target).items():
        marker = _MARKER_OF.get(text, "")
        stand_ins = (source.roles[r] for r in _STAND_INS.get(marker, ()) if r in source.roles)
        partner = theirs.get(text, markers.get(marker, next(stand_ins, None)))
        if partner is not None:
            pairs[i] = partner
    for role, i in reversed(target.roles.items()):
        partner = next((source.roles[r] for r in _STAND_INS[role] if r in source.roles), None)
        if partner is not None:
            pairs[i] = partner
    return pairs


def _structural(vocab: "Vocabulary") -> dict[str, int]:
    """Ids of special tokens, and of those with a role or a marker's name that are not declared special (as in Qwen)."""
    if vocab.tokenizer is None:
        return vocab.special
    added = {token.content: i for i, token in vocab.tokenizer.get_added_tokens_decoder().items()}
    markers = {text: i for text, i in added.items() if text in _MARKER_OF}
    return vocab.special | markers | {vocab.tokenizer.id_to_token(i): i for i in vocab.roles.values()}


@dataclasses.dataclass(frozen=True)
class SpecialToken:
    """What becomes of a special token.

    id: in the target, or None. role: of ROLES or MARKERS, or "". source_id, source_text: of its partner, or None.
    fate: "copied" (the partner has the same text), "paired" (the partner has the same role and another text), "predicted" (no
    partner; the method makes its row up: the mean row, or for a token with a text of its own that text's row), "kept" (a
    source token that was appended to the target), "dropped" (a source token that no target token stands for).
    """

    id: int | None
    text: str
    role: str
    fate: str
    source_id: int | None = None
    source_text: str | None = None

    @property
    def reserved(self) -> bool:
        """Whether the token is one of a numbered row that is kept free."""
        return not self.role and RESERVED_TOKEN.fullmatch(self.text) is not None


def special_tokens(target: "Vocabulary", source: "Vocabulary", given_size: int | None = None) -> list[SpecialToken]:
    """A report of all special tokens, by target id; dropped ones last. Ids from `given_size` on were appended."""
    pairs = pair_special(target, source)
    mine, theirs = _structural(target), _structural(source)
    text_of = {i: text for text, i in theirs.items()}
    report = []
    for text, i in sorted(mine.items(), key=lambda item: item[1]):
        role = _role(target, text, i)
        if i not in pairs:
            report.append(SpecialToken(i, text, role, "predicted"))
            continue
        fate = "copied" if theirs.get(text) == pairs[i] else "paired"
        if given_size is not None and i >= given_size:
            fate = "kept"
        report.append(SpecialToken(i, text, role, fate, pairs[i], text_of[pairs[i]]))
    for text, i in sorted(theirs.items(), key=lambda item: item[1]):
        if i not in pairs.values() and not RESERVED_TOKEN.fullmatch(text):
            report.append(SpecialToken(None, text, _role(source, text, i), "dropped", i, text))
    return report


def _role(vocab: "Vocabulary", text: str, i: int) -> str:
    return ", ".join(role for role, j in vocab.roles.items() if i == j) or _MARKER_OF.get(text, "")


def follow_ids(settings: dict, target: "Vocabulary", source: "Vocabulary", *, several: bool = False) -> dict:
    """A config of the source model with the target's ids in place of bos_token_id and the like, in nested configs too.

    Roles that the target lacks become None. A list of ids, as models have for eos, becomes the target's token of that role and
    all those whose partner is in the list; `several`: so does a single eos id, where there are such.
    """
    keys = {f"{role}_token_id": role for role in ROLES}
    followed = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            value = follow_ids(value, target, source)
        elif role := keys.get(key):
            own = target.roles.get(role)
            if isinstance(value, list) or (several and role == "eos"):
                value = _followed_list(value if isinstance(value, list) else [value], own, target, source)
            else:
                value = own
        followed[key] = value
    return followed


def _followed_list(old: list, own: int | None, target: "Vocabulary", source: "Vocabulary") -> list[int] | int | None:
    pad = target.roles.get("pad")
    ids = [] if own is None else [own]
    for i, partner in sorted(pair_special(target, source).items()):
        # Padding that has the eos row for want of a better one does not end a text.
        if partner in old and i not in ids and (i != pad or partner == source.roles.get("pad")):
            ids.append(i)
    return ids if len(ids) > 1 else next(iter(ids), None)


_FATES = {
    "copied": "the base model's row of the same token",
    "paired": "the base model's row of another token with this role",
    "predicted": "no counterpart in the base model: its row says nothing until it is trained",
    "kept": "appended, with the base model's row",
    "dropped": "in the base model only",
}


def special_section(target: "Vocabulary", source: "Vocabulary", mode: str, given_size: int) -> str:
    """Markdown on the special tokens of a transferred model, for its card."""
    lines = ["", "## Special tokens", "", f"`--special {mode}`: {MODES[mode]}."]
    if mode != "keep-target":
        lines.append("So the tokenizer's files differ from the given ones; ids of the given one are unchanged.")
    lines += ["", "| id | token | role | row | |", "|---:|---|---|---|---|"]
    for token in special_tokens(target, source, given_size):
        if token.reserved:  # there may be hundreds
            continue
        partner = f" `{token.source_text}`".replace("|", "\\|") if token.fate == "paired" else ""
        text = f"`{token.text}`".replace("|", "\\|")
        lines.append(
            f"| {'' if token.id is None else token.id} | {text} | {token.role} | {token.fate}{partner} | {_FATES[token.fate]} |"
        )
    return "\n".join([*lines, *("\n" + line for line in special_warnings(target, source))]) + "\n"


def special_warnings(target: "Vocabulary", source: "Vocabulary") -> list[str]:
    """What a user of a transferred model's special tokens should know, a sentence or two each."""
    template = chat_template(target.folder)
    lines = []
    if missing := missing_in_template(template, target.tokenizer):
        lines.append(
            f"The chat template writes {_listed(missing)}, which the tokenizer does not have: spelt out in ordinary tokens, "
            "which a model has to have been trained with."
        )
    untrained = [t.text for t in special_tokens(target, source) if t.fate == "predicted" and t.text in (template or "")]
    if untrained:
        lines.append(f"The chat template uses {_listed(untrained)}, which the base model has no counterpart for: train first.")
    if template is None and chat_template(source.folder) is not None:
        lines.append("The base model has a chat template, the target tokenizer has none (--special map-to-source keeps it).")
    return lines


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --------------------------------------------------------------------------------------------------------- chat templates


def chat_template(folder: Path | None) -> str | None:
    """The chat template in a tokenizer's folder, or None; of several, the default one. UserError for what cannot be read."""
    if folder is None:
        return None
    for name in ("chat_template.jinja", "tokenizer_config.json", "chat_template.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_bytes().decode("utf-8")
            template = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
            raise UserError(f"{file} holds no chat template that can be read: {error}") from None
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default", next(iter(named.values()), None))
        if isinstance(template, str):
            return template
    return None


def missing_in_template(template: str | None, tokenizer) -> list[str]:
    """What a chat template writes like special tokens though the tokenizer has no such tokens, in order of appearance."""
    return [name for name in dict.fromkeys(_IN_TEMPLATE.findall(template or "")) if tokenizer.token_to_id(name) is None]


# -------------------------------------------------------------------------------------------------------------- adapting


def check_mode(mode: str) -> None:
    """UserError unless `mode` is one of MODES."""
    from zett.config import nearest

    if mode not in MODES:
        raise UserError(f"special {mode!r} does not exist; {nearest(mode, MODES)}")


def adapt_special(target: "Vocabulary", source: "Vocabulary", mode: str, folder: Path) -> "Vocabulary":
    """The target with special tokens as `mode`, one of MODES, says; unless keep-target, its files are written to `folder`.

    Raises UserError if the tokenizers library does not take the result.
    """
    import tokenizers

    from zett.vocab.vocabulary import load_tokenizer

    if mode == "keep-target":
        return target
    spec = json.loads(target.tokenizer.to_str())
    pairs = pair_special(target, source)
    if mode == "map-to-source":
        renames = _renames(target, source, pairs)
        _rename(spec, renames)
        missing = [text for text in _structural(source) if text not in renames.values()]
    else:
        renames = {}
        missing = [text for text, i in _structural(source).items() if i not in pairs.values()]
    ids = {renames.get(text, text): i for text, i in target.tokenizer.get_vocab().items()}
    theirs = {token["content"]: token for token in json.loads(source.tokenizer.to_str())["added_tokens"]}
    known = {token["content"] for token in spec["added_tokens"]}
    for text in sorted((text for text in missing if not RESERVED_TOKEN.fullmatch(text)), key=_structural(source).__getitem__):
        if text not in known:
            ids.setdefault(text, max(len(target), *(i + 1 for i in ids.values())))
            plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            spec["added_tokens"].append({"content": text, **plain, **theirs.get(text, {}), "id": ids[text]})
    if isinstance(spec["model"]["vocab"], dict):
        # The library numbers added tokens by itself, from the count of the model's ids; here they have the ids that we chose.
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
    return load_tokenizer(folder)


def _renames(target: "Vocabulary", source: "Vocabulary", pairs: dict[int, int]) -> dict[str, str]:
    """The text of each paired target token -> its source partner's; a text is given to one token only."""
    text_of = {i: text for text, i in _structural(source).items()}
    rank = {i: n for n, i in reversed(list(enumerate(target.roles.values())))}
    mine = sorted(_structural(target).items(), key=lambda item: rank.get(item[1], len(rank)))
    renames: dict[str, str] = {}
    for text, i in mine:
        if i in pairs and text_of.get(pairs[i]) not in (None, *renames.values()):
            renames[text] = text_of[pairs[i]]
    while taken := [t for t, new in renames.items() if new not in renames and target.tokenizer.token_to_id(new) is not None]:
        for text in taken:
            del renames[text]
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
    """A post-processor that puts around a text what the source's does, by its tokens' ids in the target."""
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
    config = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {"clean_up_tokenization_spaces": False}
    for key in (
        "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "chat_template", "add_bos_token",
        "add_eos_token", "tokenizer_file", "backend",
    ):  # fmt: skip
        config.pop(key, None)
    # A class of a model family may rebuild its tokenizer by its own rules; this one takes tokenizer.json as it is.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    mine = {role: tokenizer.id_to_token(i) for role, i in target.roles.items()}
    theirs = {role: source.tokenizer.id_to_token(i) for role, i in source.roles.items()}
    theirs = {role: text for role, text in theirs.items() if tokenizer.token_to_id(text) is not None}
    roles = mine | theirs if mode == "map-to-source" else theirs | mine
    config |= {f"{role}_token": text for role, text in roles.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    folders = [target.folder, source.folder] if mode == "add-missing" else [source.folder, target.folder]
    origin = next((f for f in folders if chat_template(f) is not None), None)
    if origin is None:
        return
    if (origin / "chat_template.jinja").is_file():
        shutil.copyfile(origin / "chat_template.jinja", folder / "chat_template.jinja")
    else:
        (folder / "chat_template.jinja").write_bytes((chat_template(origin) or "").encode())
