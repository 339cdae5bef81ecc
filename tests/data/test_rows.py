"""What each row of a batch reads."""

import itertools

import pytest

from zett.config import Config, DataConfig
from zett.data.rows import RowTexts
from zett.data.sources import open_text
from zett.errors import UserError


def test_rows_read_their_parts(sources):
    documents, data = open_text(f"{sources}/a.jsonl"), DataConfig(batch_size=8, parts=4)
    texts = RowTexts(documents, [4, 5, 6], data)  # of another host than that of rows 0 to 3
    assert list(texts.parts) == [2, 3] and texts[4] is texts[5] is not texts[6]
    everything = RowTexts(documents, range(8), data)
    assert list(everything[4]) == list(texts[4]) and list(texts[6]) == list(documents)[3::4]
    assert sorted(itertools.chain(*everything.parts.values())) == sorted(documents)
    assert len({part.fingerprint() for part in everything.parts.values()}) == 4
    with pytest.raises(UserError, match=r"a\.jsonl:train has \d+ documents; config\.data\.parts \(64\) may be no more"):
        RowTexts(documents, range(64), DataConfig(batch_size=64, parts=64))


def test_parts_have_whole_numbers_of_rows():
    with pytest.raises(UserError, match=r"config\.data\.parts is 3; it has to divide config\.data\.batch_size \(16\)"):
        Config(data=DataConfig(parts=3, batch_size=16))


def test_one_part_is_the_source_itself(sources):
    """Configs from before there were parts have the same batches."""
    documents = open_text(f"{sources}/a.jsonl")
    assert all(RowTexts(documents, range(4), DataConfig(batch_size=4))[b] is documents for b in range(4))
