"""The longest common subsequence, by which lost bytes are counted."""

import pytest

from zett.evaluate.lost import common_bytes


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [(b"", b"", 0), (b"abc", b"", 0), (b"abc", b"abc", 3), (b"Hello World", b"helloworld", 8), (b"abcbdab", b"bdcaba", 4)],
)
def test_common_bytes(a, b, length):
    assert common_bytes(a, b) == common_bytes(b, a) == length
