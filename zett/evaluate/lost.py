"""How much of a text its tokens do not stand for."""

from collections.abc import Sequence

from zett.evaluate.tasks.encoded import EncodedTexts
from zett.vocab import Vocabulary


def bytes_lost(texts: Sequence[str], encoded: EncodedTexts, vocab: Vocabulary) -> float:
    """Share of the text's bytes that the tokens do not stand for: those outside the longest common subsequence of both."""
    kept = total = 0
    for whole, ids, length in zip(texts, encoded.ids, encoded.lengths):
        text = whole.encode()
        total += len(text)
        tokens = b"".join(vocab.tokens[i] for i in ids[:length])
        kept += len(text) if tokens == text else common_bytes(text, tokens)
    return 1 - kept / total


def common_bytes(a: bytes, b: bytes) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö, 2004): one big-integer step a byte of `b`."""
    where = [0] * 256
    for i, byte in enumerate(a):
        where[byte] |= 1 << i
    full = (1 << len(a)) - 1
    row = full
    for byte in b:
        matches = row & where[byte]
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()
