"""How byte-level tokenizers cut texts into words, by the name that GGUF has for it (`tokenizer.ggml.pre`)."""

import dataclasses

from zett.errors import UserError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class PreTokeniser:
    """Settings of the tokenizers library, and of llama.cpp where a file does not say.

    steps: before the bytes are spelled. words: whether the spelling also cuts words, as GPT-2 does. ignore_merges: a word that
    is a token is that token, whatever the merges. normaliser: what the original tokenizer does to texts first.
    """

    steps: tuple[dict, ...] = ()
    words: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    normaliser: dict | None = None


def _split(*patterns: str) -> tuple[dict, ...]:
    return tuple({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns)


_DIGITS = PreTokeniser(({"type": "Digits", "individual_digits": True},), words=True)
_LLAMA3 = PreTokeniser(_split(LLAMA3), ignore_merges=True, add_bos=True)
PRE_TOKENISERS = {
    "gpt-2": PreTokeniser(words=True),
    **dict.fromkeys(("smollm", "starcoder", "refact"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx"), PreTokeniser(_split(LLAMA3))),
    # llama.cpp leaves the normaliser out; texts in other forms than NFC were nevertheless never seen by the model.
    "qwen2": PreTokeniser(_split(QWEN2), normaliser={"type": "NFC"}),
    "deepseek-r1-qwen": PreTokeniser(_split(QWEN2)),
    "tekken": PreTokeniser(_split(TEKKEN), ignore_merges=True, add_bos=True),
    # Of files whose converter did not know the model: what llama.cpp does then.
    "default": PreTokeniser(_split(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}


def pre_tokeniser(name: str | None, where) -> PreTokeniser:
    """The one called `name`; UserError that names an unknown one and the file, `where`."""
    if name not in PRE_TOKENISERS:
        said = "not stated (tokenizer.ggml.pre)" if name is None else repr(name)
        raise UserError(f"{where}: how the tokenizer cuts words is {said}; read are {', '.join(PRE_TOKENISERS)}")
    return PRE_TOKENISERS[name]


def as_json(chosen: PreTokeniser) -> dict:
    """The "pre_tokenizer" of a tokenizer.json."""
    spelling = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": chosen.words}
    return {"type": "Sequence", "pretokenizers": [*chosen.steps, spelling]} if chosen.steps else spelling


def name_of(spec: dict) -> str | None:
    """The name in llama.cpp for how a byte-level tokenizer.json, read as `spec`, cuts words; None if none of them does.

    llama.cpp's converter knows it by a hash of the ids of one text, which are others in an edited vocabulary.
    """

    def steps(given: dict) -> list:
        parts = given["pretokenizers"] if given["type"] == "Sequence" else [given]
        return [{k: v for k, v in part.items() if k != "trim_offsets"} for part in parts]

    def key(pre_tokenizer: dict, ignore_merges: bool) -> tuple:
        return steps(pre_tokenizer), ignore_merges

    if spec["model"]["type"] != "BPE" or not spec["pre_tokenizer"]:
        return None
    own = key(spec["pre_tokenizer"], bool(spec["model"].get("ignore_merges")))
    return next((name for name, known in PRE_TOKENISERS.items() if key(as_json(known), known.ignore_merges) == own), None)
