"""What each row of a batch reads, however many hosts there are."""

from collections.abc import Iterable

from zett.config import DataConfig
from zett.data.documents import Documents


class RowTexts:
    """What each row of a batch reads: row b reads the part `b * parts // batch_size` of the source `documents`.

    Only the parts that `rows` need are opened. Streams are read to their end here, so that no training step waits for them.
    Raises TextError.
    """

    def __init__(self, documents: Documents, rows: Iterable[int], data: DataConfig):
        self._data = data
        wanted = sorted({self.number(row) for row in rows})
        self.parts = {number: documents.part(number, data.parts, data.stream_bytes) for number in wanted}
        for part in self.parts.values():
            len(part)

    def number(self, row: int) -> int:
        """The part that the row reads."""
        return int(row) * self._data.parts // self._data.batch_size

    def __getitem__(self, row: int) -> Documents:
        return self.parts[self.number(row)]
