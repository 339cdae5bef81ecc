"""Words are cut as the regexes of tokenizers cut them."""

import random

import pytest
import regex
from samplers import STRANGE, random_strings
from vocabularies import ODD, TEXTS

from zett.vocab.compiled.cutting import PIECES, character_classes, distinct_words, packed_texts
from zett.vocab.regexes import STYLES


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_words_are_cut_as_the_regex_cuts_them(style):
    for text in [*ODD, *STRANGE, *TEXTS, *random_strings(2000)]:
        data, starts = packed_texts([text[:100], text])
        begins, ends, words, stops = distinct_words(data, starts, style)
        cut = [data[begins[w] : ends[w]].tobytes().decode() for w in words]
        assert len({*zip(begins, ends)}) == len({*cut}) == len(begins)
        for part, found in ((text[:100], cut[: stops[0]]), (text, cut[stops[0] :])):
            if style == PIECES:
                part, found = part.replace(" ", "▁"), [w.replace(" ", "▁") for w in found]
            assert found == regex.findall(STYLES[style], part)


def test_character_classes_are_the_librarys():
    """But for characters that are younger than the library's tables."""
    from tokenizers import Regex, pre_tokenizers

    classes = character_classes()
    rng = random.Random(0)
    chars = [chr(c) for c in sorted({*range(0x3000), *(rng.randrange(0xE000, 0x20000) for _ in range(3000))})]
    for pattern, numbers in ((r"\s", (4, 5, 6)), (r"\p{L}", (1,)), (r"\p{M}", (2,)), (r"\p{N}", (3,))):
        kept = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str("".join(chars))
        theirs = {*chars} - {*"".join(part for part, _ in kept)}
        ours = {c for c in chars if classes[ord(c)] in numbers}
        assert theirs <= ours
        assert len(ours - theirs) <= 0.2 * len(ours) and all(ord(c) > 0x300 for c in ours - theirs)
