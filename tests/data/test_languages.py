"""Texts by language."""

import pytest

from zett.data.languages import language_source
from zett.errors import UserError


def test_sources_of_languages():
    assert language_source(["de", "fr", "de"]) == "hf:wikimedia/wikipedia:20231101.de|hf:wikimedia/wikipedia:20231101.fr"
    assert language_source(["zh-yue"], "texts/{}.txt") == "texts/zh-yue.txt"


@pytest.mark.parametrize(
    ("codes", "source", "message"),
    [(["de,fr"], "{}", "languages: 'de,fr' is no code of a language"), (["de"], "texts", "it has to have {} in the place")],
)
def test_what_is_no_source_of_a_language(codes, source, message):
    with pytest.raises(UserError, match=message):
        language_source(codes, source)
