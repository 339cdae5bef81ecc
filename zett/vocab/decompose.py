"""Exact decomposition of byte strings into source tokens: what the source tokenizer's own model makes of those bytes."""

from collections.abc import Iterable

from zett.errors import UserError
from zett.vocab.bytes import BYTE_TOKEN, SPACE_MARK, to_alphabet


class Decomposer:
    """Calls the source tokenizer's model on byte strings; ids from `size` on are bytes that the source has no token for."""

    def __init__(self, source):
        if source.kind == "WordPiece":
            raise UserError("a WordPiece tokenizer as the source is not supported yet")
        self._model = source.tokenizer.model
        self._size = len(source)
        self._byte_ids = [source.id_of.get(bytes([b]), self._size + b) for b in range(256)]
        self._byte_level = source.kind == "byte-level BPE"
        # Tokens that stand for nothing: of the ids that a model can return, these are its unknown token.
        self._nothing = {i for i, token in enumerate(source.tokens) if not token}

    def __call__(self, tokens: Iterable[bytes]) -> list[list[int]]:
        """Source ids of each byte string."""
        one = self._of_bytes if self._byte_level else self._of_text
        return [one(token) for token in tokens]

    def _of_bytes(self, token: bytes) -> list[int]:
        if not token:
            return []
        pieces = self._model.tokenize(to_alphabet(token))
        ids = [piece.id for piece in pieces]
        # A byte-level vocabulary without all 256 bytes drops the ones that it lacks.
        if sum(len(piece.value) for piece in pieces) != len(token) or not self._nothing.isdisjoint(ids):
            return [self._byte_ids[b] for b in token]
        return ids

    def _of_text(self, token: bytes) -> list[int]:
        ids: list[int] = []
        run: list[str] = []
        # surrogateescape keeps bytes that are not UTF-8 as single marks between the runs of text.
        for char in token.decode("utf-8", "surrogateescape"):
            if "\udc80" <= char <= "\udcff":
                ids += self._of_run("".join(run))
                run = []
                ids.append(self._byte_ids[ord(char) - 0xDC00])
            else:
                run.append(char)
        return ids + self._of_run("".join(run))

    def _of_run(self, text: str) -> list[int]:
        if not text:
            return []
        text = text.replace(" ", SPACE_MARK)
        encoded = text.encode()
        ids: list[int] = []
        for piece in self._model.tokenize(text):
            if piece.id not in self._nothing:
                ids.append(piece.id)
            elif match := BYTE_TOKEN.fullmatch(piece.value):  # beside the text "<unk>", models spell known characters in bytes
                ids.append(self._byte_ids[int(match[1], 16)])
            else:
                unknown = encoded[slice(*piece.offsets)]  # a model's offsets count bytes
                ids += [self._byte_ids[b] for b in unknown.replace(SPACE_MARK.encode(), b" ")]
        return ids
