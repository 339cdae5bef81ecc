"""Which tokens a smaller vocabulary keeps: what it cannot do without, then what a text uses most.

Text whose tokens all stay is cut as before:
- BPE: with a token stay those that its merges make on the way. Merges keep their order, so that of those left the first is the
  one that was done before.
- Unigram: scores stay, and the piece with the lowest, since an unknown character's score follows from it. The best way to cut a
  text is still there, and no way has become better.
- WordPiece and WordLevel: the longest token that fits is still there, and no longer one.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.lms.class_defaults import with_defaults
from zett.lms.unported import PADDED_POSITIONS
from zett.surgery.settings import named_ids
from zett.surgery.spec import read_spec, spec_ids
from zett.vocab import Vocabulary
from zett.vocab.bytes import BYTE_TOKEN, CHAR_TO_BYTE, RESERVED_TOKEN, TokenFormat, token_format
from zett.vocab.pairing import structural
from zett.vocab.prompts import chat_template


def required(base: BaseModel, rows: int, generation: dict) -> set[int]:
    """Ids that every smaller vocabulary of the model keeps.

    Special tokens, those that settings, chat template and post-processor name, added tokens that are not merely reserved, and
    the bytes into which everything else falls. generation: generation_config.json. UserError where a setting names a row
    without a token.
    """
    vocab = base.vocab
    kept = {*vocab.special.values(), *vocab.roles.values(), *vocab.ends, *structural(vocab).values()}
    template = chat_template(vocab.folder) or ""
    for i, token in vocab.tokenizer.get_added_tokens_decoder().items():
        if token.content in template or not RESERVED_TOKEN.fullmatch(token.content):
            kept.add(i)
    kept |= spec_ids(read_spec(vocab))
    for file, settings in (("config.json", with_defaults(base.hf_config, vocab)), ("generation_config.json", generation)):
        for key, ids in named_ids(settings, rows).items():
            if wrong := [i for i in ids if i >= len(vocab)]:
                raise UserError(
                    f"{base.folder / file}: {key} is {wrong[0]}, which has a row but no token in the tokenizer of {len(vocab)} "
                    "ids; correct it, or give the model the tokenizer that it belongs to"
                )
            kept |= set(ids)
    if base.hf_config.get("model_type") in PADDED_POSITIONS and "pad" in vocab.roles:
        kept |= set(range(vocab.roles["pad"]))  # positions count from the padding id, so it stays what it is
    return kept | bytes_of(vocab) | worst_piece(vocab)


def bytes_of(vocab: Vocabulary) -> set[int]:
    """Ids of tokens that stand for a byte each."""
    form = vocab.format or token_format(vocab.tokenizer)
    texts = vocab.tokenizer.get_vocab(with_added_tokens=False)
    if form.byte_tokens:
        return {i for text, i in texts.items() if BYTE_TOKEN.fullmatch(text)}
    return {i for text, i in texts.items() if form.byte_level and _char(text, form) in CHAR_TO_BYTE}


def worst_piece(vocab: Vocabulary) -> set[int]:
    """The id of a Unigram's piece with the lowest score; none of other tokenizers."""
    form = vocab.format or token_format(vocab.tokenizer)
    scores = [score for _, score in form.scores]
    return {int(np.argmin(scores))} if scores else set()


def _char(text: str, form: TokenFormat) -> str | None:
    """The character that a token of the model is, in whichever place of a word; None if it is longer."""
    char = text.removesuffix(form.word_end) if form.word_end and text != form.word_end else text
    char = char.removeprefix(form.continuing) if form.continuing and char != form.continuing else char
    return char if len(char) == 1 else None


def alphabet(vocab: Vocabulary, counts: np.ndarray) -> set[int]:
    """Ids of the single characters that a text is made of, where nothing else could spell them."""
    form = vocab.format or token_format(vocab.tokenizer)
    if form.complete:
        return set()
    texts = vocab.tokenizer.get_vocab(with_added_tokens=False)
    used = {char for text, i in texts.items() if counts[i] for char in text}
    return {i for text, i in texts.items() if _char(text, form) in used}


def closure(vocab: Vocabulary) -> Callable[[Iterable[int]], set[int]]:
    """A function from ids to those and the ones that they are made of by merges."""
    model = json.loads(vocab.tokenizer.model.__getstate__())
    if model["type"] != "BPE":
        return lambda ids: set(ids)
    ways, ranks = _ways(model)
    texts = {i: text for text, i in model["vocab"].items()}
    parts: dict[int, tuple[int, ...]] = {}

    def made_of(i: int) -> tuple[int, ...]:
        if i not in parts:
            found = ways.get(texts.get(i, ""), [])
            # Where several merges make a token, which of them does is found by merging.
            pair = found[0] if len(found) == 1 else _last_merge(texts[i], model, ranks) if found else ()
            parts[i] = tuple(model["vocab"][text] for text in pair)
        return parts[i]

    def close(ids: Iterable[int]) -> set[int]:
        left, closed = list(ids), set()
        while left:
            if (i := left.pop()) not in closed:
                closed.add(i)
                left += made_of(i)
        return closed

    return close


def pairs_of(model: dict) -> list[tuple[str, str]]:
    """A BPE's merges, however they are written."""
    split = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(a, b) for a, b in split]


def _ways(model: dict) -> tuple[dict[str, list], dict[tuple[str, str], int]]:
    prefix = len(model.get("continuing_subword_prefix") or "")
    ways: dict[str, list] = {}
    ranks: dict[tuple[str, str], int] = {}
    for rank, (a, b) in enumerate(pairs_of(model)):
        ways.setdefault(a + b[prefix:], []).append((a, b))
        ranks[a, b] = rank
    return ways, ranks


def _last_merge(text: str, model: dict, ranks: dict[tuple[str, str], int]) -> tuple[str, ...]:
    """The merge that makes the token in the end; () if merging does not lead to it."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    inner = text.removesuffix(suffix) if suffix else text
    symbols = list(inner.removeprefix(prefix) if prefix else inner)
    goes_on = bool(prefix) and text.startswith(prefix)
    symbols = [(prefix if goes_on or k else "") + char for k, char in enumerate(symbols)]
    if inner != text:
        symbols[-1] += suffix
    last: tuple[str, ...] = ()
    while len(symbols) > 1:
        rank, k = min((ranks.get(pair, len(ranks)), k) for k, pair in enumerate(itertools.pairwise(symbols)))
        if rank == len(ranks):
            return ()
        last = (symbols[k], symbols[k + 1])
        symbols[k : k + 2] = [symbols[k] + symbols[k + 1][len(prefix) :]]
    return last


def chosen(vocab: Vocabulary, counts: np.ndarray, needed: set[int], size: int | None) -> list[int]:
    """The ids of a vocabulary of at most `size` ids, or of all that are used: `needed`, then the most used.

    counts: `[V]`, how often a text has each id. Where the text uses fewer, characters and then what is most probable fill up.
    UserError if `needed` alone is more.
    """
    close = closure(vocab)
    kept = close(needed | alphabet(vocab, counts))
    if size is not None and len(kept) > size:
        raise UserError(
            f"vocab_size is {size:,}, but {len(kept):,} tokens cannot go: special tokens, bytes, characters of the text, "
            "tokens that were asked for, and what these are made of"
        )
    if size is None:
        return sorted(close(kept | set(np.flatnonzero(counts).tolist())))
    for i in _order(vocab, counts):
        if len(kept) >= size:
            break
        more = close([i]) - kept
        if len(kept) + len(more) <= size:
            kept |= more
    return sorted(kept)


def _order(vocab: Vocabulary, counts: np.ndarray) -> Sequence[int]:
    form = vocab.format or token_format(vocab.tokenizer)
    texts = {i: text for text, i in vocab.tokenizer.get_vocab().items()}
    ids = [i for i, token in enumerate(vocab.tokens) if token or counts[i]]
    prior = np.asarray(vocab.log_prior, np.float64)
    return sorted(ids, key=lambda i: (-counts[i], _char(texts[i], form) is None, -prior[i], i))
