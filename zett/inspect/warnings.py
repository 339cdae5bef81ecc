"""What a user should know of another tokenizer for a model: one list for `zett inspect`, `zett transfer` and the card."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from zett.errors import UserError
from zett.inspect.describe import digit_scheme, splits_marks
from zett.vocab import Vocabulary
from zett.vocab.adapt import OLD_TOKEN_SETTINGS, of_same_text, takes_token_types
from zett.vocab.bytes import UTF8_BYTES
from zett.vocab.pairing import Pairing, followed_ends, listed
from zett.vocab.prompts import around, chat_template, missing_in_template

# high: output is wrong or lost. medium: the result is worse than it could be. low: good to know.
HEADINGS = {"high": "Grave:", "medium": "Worth knowing:", "low": "Minor:"}
SEVERITIES = tuple(HEADINGS)
# Losses of a tokenizer that readers seldom notice.
_SLIGHT = {
    "composition (NFC)", "compatibility forms (NFKC)", "accents on compatibility forms", "control characters",
    "a space at the beginning", "a space at the end",
}  # fmt: skip
# Transformers suspects folders of these model types, written by a version below this one, of a tokenizer with a wrong pattern.
_SUSPECTED = ("mistral", "mistral3", "voxtral", "ministral", "pixtral")
_TRUSTED_FROM = 5
_LARGE = 100_000  # ids; it does not suspect smaller tokenizers
# Beginnings of the names of tokenizer classes that make token_type_ids by default.
_TYPED = ("Bert", "CodeGen", "Deberta", "Canine", "FNet", "Tapas", "MarkupLM", "LayoutLMv2")

Warn = Callable[[str, str, str, str], None]


def warnings_of(source: Vocabulary, target: Vocabulary, pairing: Pairing, report: dict | None = None) -> list[dict]:
    """What to know of a transfer, the gravest first: "severity" (one of SEVERITIES), "topic", "what" is the case, what to "do".

    target: the tokenizer as it is written. pairing: of its special tokens. report: of `inspect`, for warnings that come from
    texts or from trying all tokens. Raises UserError for files beside the tokenizers that cannot be read.
    """
    found: list[dict] = []

    def warn(severity: str, topic: str, what: str, do: str) -> None:
        found.append({"severity": severity, "topic": topic, "what": what, "do": do})

    _warn_texts(warn, source, target)
    _warn_ends(warn, source, target, pairing)
    _warn_prompts(warn, source, target)
    _warn_special(warn, target, pairing)
    _warn_settings(warn, source, target)
    if report is not None:
        _warn_vocabulary(warn, report, source)
        if report["premium"]:
            _warn_premium(warn, report["premium"])
    return sorted(found, key=lambda warning: SEVERITIES.index(warning["severity"]))


def lines(warnings: Sequence[dict]) -> list[str]:
    """Each warning in one line."""
    return [f"{w['topic']}: {w['what']} {w['do']}" for w in warnings]


# ------------------------------------------------------------------------------------------------- what becomes of a text


def _warn_texts(warn: Warn, source: Vocabulary, target: Vocabulary) -> None:
    lost = [loss for loss in target.losses if loss not in source.losses]
    if lost:
        warn(
            "medium" if set(lost) <= _SLIGHT else "high",
            "losses",
            f"The tokenizer does not preserve {listed(lost, len(lost))}, which the base model's does.",
            "The model can neither see nor write that any more. Take a byte-level tokenizer if it matters (in code, it does).",
        )
    old, new = digit_scheme(source), digit_scheme(target)
    if old.scheme != new.scheme:
        warn(
            "medium",
            "digits",
            f"Numbers are cut otherwise: 1234567 as {'|'.join(old.example)} ({old.scheme}) before, "
            f"as {'|'.join(new.example)} ({new.scheme}) now.",
            "Expect arithmetic to suffer most. Take a tokenizer with the same scheme, or train on text with numbers after.",
        )
    shared = len(target.id_of.keys() & source.id_of.keys()) / len(target.id_of)
    if shared < 0.3:
        warn(
            "medium",
            "overlap",
            f"Only {shared:.0%} of the tokenizer's tokens are in the base model's: most rows have to be made up.",
            "Training-free methods are weak here: use a hypernetwork, and measure with `zett eval`.",
        )
    if splits_marks(target):
        warn(
            "low" if splits_marks(source) else "medium",
            "combining marks",
            "The pre-tokeniser cuts words at combining marks: Hindi, Bengali, Khmer and others fall into letters.",
            "For these languages take a tokenizer whose pattern keeps marks inside words (\\p{M}).",
        )
    spaces = ["a space is put before" in " ".join(vocab.rules) for vocab in (source, target)]
    if spaces[0] != spaces[1]:
        which = ("base model's tokenizer", "other") if spaces[0] else ("tokenizer", "base model's")
        warn(
            "low",
            "space at the beginning",
            f"The {which[0]} puts a space before a text (or every word), the {which[1]} does not.",
            "A first word, and a word after a special token, is another token than in the base model; little to worry about.",
        )


# ----------------------------------------------------------------------------------------- what begins, ends and frames it


def _warn_ends(warn: Warn, source: Vocabulary, target: Vocabulary, pairing: Pairing) -> None:
    if not _generates(source):
        return
    ends = followed_ends(list(source.ends), target, source)
    if source.ends and not ends:
        warn(
            "high",
            "no end",
            f"The tokenizer has no token that ends a text, as {_texts(source, source.ends)} {_does(source.ends)} for the base "
            "model: generation goes on until it is cut off.",
            "Transfer with --special add-missing or map-to-source.",
        )
        return
    partners = {token.source_id for token in pairing.tokens if token.fate != "dropped"}
    if (theirs := source.roles.get("eos")) is not None and theirs not in partners:
        warn(
            "high",
            "another end",
            f"The base model ends what it writes with {_texts(source, [theirs])}, which the tokenizer has no counterpart of; "
            f"{_texts(target, ends)} seldom comes instead.",
            "Generation may not stop by itself: transfer with --special map-to-source, or add-missing.",
        )


def _warn_prompts(warn: Warn, source: Vocabulary, target: Vocabulary) -> None:
    (before, after), (own_before, own_after) = around(source), around(target)
    if own_after and not after and _generates(source):
        texts = _texts(target, own_after)
        warn(
            "high",
            "end of prompts",
            f"The tokenizer puts {texts} after every text, prompts included: the model goes on after an end.",
            "Encode prompts with add_special_tokens=False, or transfer with --special map-to-source.",
        )
    if before and not own_before:
        warn(
            "high",
            "beginning of text",
            f"The base model's tokenizer puts {_texts(source, before)} before every text, this one puts nothing.",
            "The body expects it: write it into your prompts, or transfer with --special map-to-source.",
        )
    if own_before and not before:
        warn(
            "medium",
            "beginning of text",
            f"The tokenizer puts {_texts(target, own_before)} before every text, the base model's puts nothing.",
            "The body has not seen that: transfer with --special map-to-source, or encode with add_special_tokens=False.",
        )
    theirs, own = (chat_template(vocab.folder) for vocab in (source, target))
    if missing := missing_in_template(own, target.tokenizer):
        warn(
            "high",
            "chat template",
            f"The chat template writes {listed(missing)}, which the tokenizer does not have: spelt out in ordinary tokens, "
            "which a model has to have been trained with.",
            "Transfer with --special map-to-source, for the base model's template and its tokens.",
        )
    if own is None and theirs is not None:
        warn(
            "medium",
            "chat template",
            "The base model has a chat template, the tokenizer has none: chats cannot be written as the model knows them.",
            "Transfer with --special map-to-source or add-missing, which keep it.",
        )


def _warn_special(warn: Warn, target: Vocabulary, pairing: Pairing) -> None:
    template = chat_template(target.folder) or ""
    made_up = [token.text for token in pairing.tokens if token.fate == "predicted"]
    if untrained := [text for text in made_up if text in template]:
        warn(
            "high",
            "chat template",
            f"The chat template uses {listed(untrained)}, which the base model has no counterpart for.",
            "Train before you use it, or transfer with --special map-to-source.",
        )
    with_role = [t.text for t in pairing.tokens if t.fate == "predicted" and t.role and t.text not in untrained]
    if with_role:
        warn(
            "medium",
            "special tokens",
            f"Of the tokenizer's, {listed(with_role)} {_have(with_role)} no counterpart in the base model.",
            "The rows of such tokens carry no meaning before they are trained.",
        )
    lost = [token for token in pairing.tokens if token.fate == "dropped"]
    if lost:
        warn(
            "medium" if any(token.role for token in lost) else "low",
            "special tokens",
            f"Of the base model's, {listed([t.text for t in lost])} {_have(lost)} no counterpart in the tokenizer.",
            "To keep them, transfer with --special add-missing.",
        )
    others = [token for token in pairing.tokens if token.reason.endswith("stands in")]
    stand_ins = [f"{token.text} ({token.role}) has the row of {token.source_text}" for token in others]
    if stand_ins:
        warn(
            "low",
            "special tokens",
            f"For want of a token that does the same in the base model, {listed(stand_ins)}.",
            "It means something else before it is trained.",
        )


# --------------------------------------------------------------------------------------------- settings beside the tokens


def _warn_settings(warn: Warn, source: Vocabulary, target: Vocabulary) -> None:
    config, generation = (_settings(source.folder, name) for name in ("config.json", "generation_config.json"))
    added = config.get("model_type") in ("gpt2", "openai-gpt")  # these models look the types up among the tokens
    if not takes_token_types(source.folder) and _makes_token_types(_settings(target.folder, "tokenizer_config.json")):
        warn(
            "high",
            "token_type_ids",
            "The tokenizer hands out token_type_ids, which the model does not take: "
            + ("it adds the row of token 0 to every other." if added else "`generate(**inputs)` refuses them."),
            "Encode with return_token_type_ids=False, or transfer with --special map-to-source or add-missing.",
        )
    if dropped := [name for name in OLD_TOKEN_SETTINGS if generation.get(name)]:
        warn(
            "medium",
            "settings",
            f"The base model's generation_config.json says {listed(dropped)}, in ids of the old vocabulary: left out.",
            "Write them anew, in ids of the new one, if you need them.",
        )
    if source.roles.get("pad") is not None and target.roles.get("pad") is None and of_same_text("pad", target, source) is None:
        warn(
            "low",
            "padding",
            "The tokenizer has no padding token, the base model has one: texts of different length make no batch.",
            "Set tokenizer.pad_token to its end token, or transfer with --special add-missing.",
        )
    version = str(config.get("transformers_version") or "0").split(".")[0]
    trusted = version.isdecimal() and int(version) >= _TRUSTED_FROM
    told = "fix_mistral_regex" in _settings(target.folder, "tokenizer_config.json")
    if config.get("model_type") in _SUSPECTED and not trusted and not told and len(target) > _LARGE:
        warn(
            "medium",
            "transformers_version",
            "Transformers will say of the folder, as it does not of the tokenizer alone, that it has an incorrect regex "
            f"pattern: it goes by the model's type and transformers_version ({config.get('transformers_version', 'none')}).",
            "Ignore it: fix_mistral_regex=True would put another pattern into this tokenizer and spoil it.",
        )


def _settings(folder: Path | None, name: str) -> dict:
    file = folder / name if folder is not None else None
    if file is None or not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    return read if isinstance(read, dict) else {}


def _makes_token_types(config: dict) -> bool:
    if "model_input_names" in config:
        return "token_type_ids" in config["model_input_names"]
    return str(config.get("tokenizer_class")).startswith(_TYPED)


def _generates(source: Vocabulary) -> bool:
    """Whether the base model writes text, by its config; without one, whether its tokenizer has no mask."""
    architectures = _settings(source.folder, "config.json").get("architectures")
    if architectures:
        return any(part in str(name) for name in architectures for part in ("CausalLM", "LMHead", "ConditionalGeneration"))
    return "mask" not in source.roles


# --------------------------------------------------------------------------------------------------- with a longer look


def _warn_vocabulary(warn: Warn, report: dict, source: Vocabulary) -> None:
    new, pair = report["target"], report["pair"]
    in_text = report["text"] and report["text"]["all"]
    if in_text and in_text["target_unknown"] > in_text["source_unknown"]:
        warn(
            "high",
            "unknown tokens",
            f"{in_text['target_unknown']} of {in_text['target_tokens']} tokens of your text are unknown to the tokenizer.",
            "That text is lost. Take a tokenizer with byte fallback, or one made for these languages.",
        )
    if in_text and in_text["relative_length"] > 1.1:
        warn(
            "medium",
            "length",
            f"Your text takes {in_text['relative_length']:.0%} of the source's tokens: pieces are finer.",
            "Generation gets slower, and the body has seldom seen such short pieces: measure it with `zett eval`.",
        )
    if pair["longer"]:
        share = f", {in_text['target_longer_share']:.2%} of those in your text" if in_text else ""
        examples = ", ".join(f"{t['token']} ({t['pieces']})" for t in pair["longest"][:3])
        warn(
            "low",
            "long tokens",
            f"{pair['longer']} tokens ({pair['longer'] / new['tokens']:.1%}{share}) have more than {pair['max_pieces']} source "
            f"pieces, such as {examples}: a hypernetwork reads no more than that.",
            "Harmless if they are rare. Else train with a larger hypernet.max_pieces.",
        )
    if pair["bytes_without_source_token"] and source.kind != "WordPiece":
        warn(
            "low",
            "bytes",
            f"The source has no token for {pair['bytes_without_source_token']} of the {len(UTF8_BYTES)} bytes in UTF-8.",
            "Target tokens with these get rows that say little: keep to scripts that the source covers.",
        )
    for name, facts in (("source", report["source"]), ("target", new)):
        if facts["unreachable"]["count"] > 0.005 * facts["tokens"]:
            count = facts["unreachable"]["count"]
            warn(
                "low",
                "unreachable tokens",
                f"{count} tokens of the {name} come out of no text ({count / facts['tokens']:.1%}), such as "
                f"{', '.join(facts['unreachable']['examples'][:4])}.",
                "Their rows are never used: wasted memory."
                if name == "target"
                else "Their rows were never trained as they look.",
            )


def _warn_premium(warn: Warn, premium: dict) -> None:
    dear = {name: p for name, p in premium["languages"].items() if p["target"] > 1.2 * p["source"] and p["target"] > 1.5}
    if dear:
        worst = sorted(dear, key=lambda name: -dear[name]["target"] / dear[name]["source"])[:5]
        shown = ", ".join(f"{name} ({dear[name]['source']:.1f} to {dear[name]['target']:.1f})" for name in worst)
        warn(
            "medium",
            "token premium",
            f"{len(dear)} languages get dearer, in tokens for what {premium['reference']} says in one: {shown}.",
            "Take a tokenizer that was trained on these languages if you serve them.",
        )


# ----------------------------------------------------------------------------------------------------------------- words


def _texts(vocab: Vocabulary, ids: Sequence[int]) -> str:
    return listed([vocab.tokenizer.id_to_token(i) for i in ids])


def _have(words: Sequence) -> str:
    return "has" if len(words) == 1 else "have"


def _does(words: Sequence) -> str:
    return "does" if len(words) == 1 else "do"
