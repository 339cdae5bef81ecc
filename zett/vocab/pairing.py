"""Special tokens: their roles, their partners in another vocabulary and why, and which mode of `--special` is advisable."""

import dataclasses
from typing import TYPE_CHECKING

from zett.vocab.bytes import RESERVED_TOKEN
from zett.vocab.prompts import around, chat_template

if TYPE_CHECKING:
    from zett.vocab.vocabulary import Vocabulary

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")

# Usual names of special tokens by role, for tokenizers whose files declare no roles.
WELL_KNOWN = {
    "bos": ("<s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "[EOS]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
}

# Tokens that structure chats, tool calls, images and code: from what they do to the names that model makers gave them.
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

# Of a token's roles, the first of these decides whose row it gets. eos and sep come first: the model has to predict them, so
# their output rows are trained.
PRECEDENCE = ("eos", "sep", "bos", "cls", "mask", "unk", "pad")
# What one role is called in decoders and in encoders.
_NEAREST = {"bos": "cls", "cls": "bos", "eos": "sep", "sep": "eos"}
# Roles whose tokens stand in for a role that the source has no token for, best first. A bos never stands in for eos or pad.
_STAND_INS = {"bos": ("eos",), "pad": ("eos",), "turn start": ("bos", "cls"), "turn end": ("eos", "sep")}

# ----------------------------------------------------------------------------------------------------------------- pairs


@dataclasses.dataclass(frozen=True)
class Pair:
    """The source token whose row a special target token gets.

    reason: "mapped" (somebody has said so); "same text"; "same role" (of ROLES); "same use" (of MARKERS); "nearest role" (an
    encoder's for a decoder's); "... stands in" (a token of another role, if there is none of these). by: the target token's
    role or use that decided.
    """

    source: int
    reason: str
    by: str

    @property
    def same(self) -> bool:
        """Whether both do the same in texts, so that one can have the other's name."""
        return not self.reason.endswith("stands in")

    @property
    def ends(self) -> bool:
        """Whether the target token ends a text where the source's does."""
        return self.reason == "same text" or self.by in ("eos", "sep") or self.by.endswith(" end")


def pair_special(target: "Vocabulary", source: "Vocabulary") -> dict[int, int]:
    """Source id for each special target id that has a partner; see `find_pairs`."""
    return {i: pair.source for i, pair in find_pairs(target, source).items()}


def find_pairs(target: "Vocabulary", source: "Vocabulary") -> dict[int, Pair]:
    """The partner of each special target id: the source token with the same text, else with the same role or use, else near.

    What has been mapped to one source token has that partner, and what has been mapped to several has none.
    """
    mapped = mapped_pieces(target, source)
    theirs = structural(source)
    spelled = added_tokens(source) | theirs
    markers = {marker: theirs[name] for name, marker in reversed(_MARKER_OF.items()) if name in theirs}
    pairs = {}
    for text, i in structural(target).items():
        roles = [role for role in PRECEDENCE if target.roles.get(role) == i]
        marker = _MARKER_OF.get(text, "")
        uses = [use for use in (*roles, marker, *(["eos"] if i in target.ends else [])) if use]
        if i in mapped:
            if len(mapped[i]) == 1:
                pairs[i] = Pair(mapped[i][0], "mapped", next(iter(uses), ""))
            continue
        if text in spelled:
            pairs[i] = Pair(spelled[text], "same text", next(iter(uses), ""))
            continue
        found = [Pair(source.roles[use], "same role", use) for use in uses if use in source.roles]
        found += [Pair(markers[use], "same use", use) for use in uses if use in markers]
        found = sorted(found, key=lambda pair: uses.index(pair.by))
        nearest = ((use, _NEAREST[use]) for use in uses if use in _NEAREST)
        found += [Pair(source.roles[near], "nearest role", use) for use, near in nearest if near in source.roles]
        # If there is no bos, a token that is the bos of other models (Qwen's <|endoftext|>, which pads) comes before the eos.
        known = [theirs[name] for name in WELL_KNOWN["bos"] if name in theirs]
        found += [Pair(j, "known name stands in", "bos") for j in known if "bos" in uses]
        others = ((use, other) for use in uses for other in _STAND_INS.get(use, ()))
        found += [Pair(source.roles[other], f"{other} stands in", use) for use, other in others if other in source.roles]
        if found:
            pairs[i] = found[0]
    return pairs | {i: Pair(ids[0], "mapped", "") for i, ids in mapped.items() if len(ids) == 1 and i not in pairs}


def mapped_pieces(target: "Vocabulary", source: "Vocabulary") -> dict[int, list[int]]:
    """The source ids of the text that a target id has been mapped to, by id."""
    return {i: source.tokenizer.encode(text, add_special_tokens=False).ids for i, text in target.mapped.items()}


def added_tokens(vocab: "Vocabulary") -> dict[str, int]:
    """Ids by text of the tokens that were added to the model's vocabulary, special or not."""
    if vocab.tokenizer is None:
        return {}
    return {token.content: i for i, token in vocab.tokenizer.get_added_tokens_decoder().items()}


def structural(vocab: "Vocabulary") -> dict[str, int]:
    """Ids by text of special tokens, and of others with a role or a marker's name, which Qwen does not declare special."""
    if vocab.tokenizer is None:
        return vocab.special
    markers = {text: i for text, i in added_tokens(vocab).items() if text in _MARKER_OF}
    return vocab.special | markers | {vocab.tokenizer.id_to_token(i): i for i in (*vocab.roles.values(), *vocab.ends)}


def followed_ends(old: list, target: "Vocabulary", source: "Vocabulary") -> list[int]:
    """The target's ids for tokens that end a text where the source's ids `old` do; its own eos comes first."""
    own = target.roles.get("eos")
    ids = [] if own is None else [own]
    return ids + [i for i, pair in sorted(find_pairs(target, source).items()) if pair.source in old and pair.ends and i != own]


# ---------------------------------------------------------------------------------------------------------------- report


@dataclasses.dataclass(frozen=True)
class SpecialToken:
    """What becomes of a special token.

    id: in the target, or None. role: of ROLES or MARKERS, or "". source_id, source_text: of its partner, or None.
    fate: "copied" (the partner has the same text), "paired" (the partner has another text), "mapped" (somebody has said for
    which text of the source it stands; source_text is this text, and there is a source_id if it is one token), "predicted" (no
    partner; the method makes its row up: the mean row, or for a token with a text of its own that text's row), "kept" (a source
    token that was appended to the target), "dropped" (a source token that no target token stands for). reason: of a partner,
    see `Pair`.
    """

    id: int | None
    text: str
    role: str
    fate: str
    source_id: int | None = None
    source_text: str | None = None
    reason: str = ""

    @property
    def reserved(self) -> bool:
        """Whether the token is a numbered one that is kept free for later use."""
        return not self.role and RESERVED_TOKEN.fullmatch(self.text) is not None


@dataclasses.dataclass(frozen=True)
class Pairing:
    """What becomes of all special tokens, by target id, with dropped ones last; and which of MODES is advisable, and why."""

    tokens: tuple[SpecialToken, ...]
    mode: str
    why: str

    def texts(self, fate: str) -> list[str]:
        """The texts of the tokens with this fate."""
        return [token.text for token in self.tokens if token.fate == fate]


def pairing(target: "Vocabulary", source: "Vocabulary", given_size: int | None = None) -> Pairing:
    """The special tokens of `target` beside the ones of `source`. Ids from `given_size` on were appended."""
    pairs = find_pairs(target, source)
    theirs = structural(source)
    text_of = {i: text for text, i in (added_tokens(source) | theirs).items()}
    report = []
    told = {target.tokenizer.id_to_token(i): i for i in target.mapped}
    for text, i in sorted((structural(target) | told).items(), key=lambda item: item[1]):
        role = _role(target, text, i)
        if i in target.mapped:
            partner = pairs[i].source if i in pairs else None
            report.append(SpecialToken(i, text, role, "mapped", partner, target.mapped[i], "mapped"))
            continue
        if i not in pairs:
            report.append(SpecialToken(i, text, role, "predicted"))
            continue
        fate = "copied" if pairs[i].reason == "same text" else "paired"
        if given_size is not None and i >= given_size:
            fate = "kept"
        report.append(SpecialToken(i, text, role, fate, pairs[i].source, text_of[pairs[i].source], pairs[i].reason))
    used = {pair.source for pair in pairs.values()}
    for text, i in sorted(theirs.items(), key=lambda item: item[1]):
        if i not in used and not RESERVED_TOKEN.fullmatch(text):
            report.append(SpecialToken(None, text, _role(source, text, i), "dropped", i, text))
    return Pairing(tuple(report), *_advice(target, source, report))


def _role(vocab: "Vocabulary", text: str, i: int) -> str:
    roles = [role for role in ROLES if vocab.roles.get(role) == i]
    if i in vocab.ends and "eos" not in roles:
        roles.append("eos")
    return ", ".join(roles) or _MARKER_OF.get(text, "")


def _advice(target: "Vocabulary", source: "Vocabulary", tokens: list[SpecialToken]) -> tuple[str, str]:
    """The mode that keeps most of what the base model was trained with, and why."""
    theirs, mine = (chat_template(vocab.folder) for vocab in (source, target))
    if theirs is not None and theirs != mine:
        what = "none" if mine is None else "another one"
        return "map-to-source", f"the base model was trained with its chat template, the tokenizer has {what}"
    frame, partners = around(source), {token.id: token.source_id for token in tokens}
    if tuple(tuple(partners.get(i) for i in side) for side in around(target)) != frame:
        theirs_is, ours_is = (_frame_words(vocab) for vocab in (source, target))
        return (
            "map-to-source",
            f"the base model was trained with {theirs_is} around a text, and the tokenizer puts {ours_is} there",
        )
    lost = [f"{token.text} ({token.role})" for token in tokens if token.fate == "dropped" and token.role]
    if lost:
        return "add-missing", f"the tokenizer has no counterpart of the base model's {listed(lost)}"
    return "keep-target", "every special token of the base model with a role has a counterpart, and texts are framed alike"


def _frame_words(vocab: "Vocabulary") -> str:
    sides = [" ".join(vocab.tokenizer.id_to_token(i) for i in side) for side in around(vocab)]
    return " … ".join(sides).strip() if any(sides) else "nothing"


def listed(names: list[str], most: int = 6) -> str:
    """Names in a sentence."""
    names = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
