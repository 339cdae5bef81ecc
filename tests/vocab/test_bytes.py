"""Token bytes spell what the tokenizer makes of a text: 100,000 random strings over all kinds of tokenizers, in every run."""

import functools
import json
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from vocabularies import FOLDERS, MADE, NO_FALLBACK, TEXTS, vocabulary

from zett.vocab.bytes import BYTE_TOKEN, to_alphabet
from zett.vocab.train import KINDS

NAMES = [*KINDS, NO_FALLBACK, *MADE, *FOLDERS]
BYTE_LEVEL = [
    "bpe",
    "bytes",
    "byte-level unigram",
    *(n for n in MADE if "like" in n and n[5:] in "gpt2 llama3 superword"),
    *FOLDERS,
]
BYTE_LEVEL = [n for n in BYTE_LEVEL if not re.match("bert|mistral|unigram|wmt|wordpiece", n)]
STRINGS = -(-110_000 // len(NAMES))  # for each tokenizer; some of them are left out
CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"

# Letters of 60 languages: ranges of code points, or the letters that come to those of English.
LANGUAGES = {
    "English": "", "German": "äöüßÄÖÜ", "French": "àâæçéèêëîïôœùûüÿ«»", "Spanish": "áéíñóúü¿¡",
    "Portuguese": "áâãàçéêíóôõú",
    "Italian": "àèéìòù", "Dutch": "ĳëï", "Swedish": "åäö", "Norwegian": "æøå", "Danish": "æøåÆØÅ",
    "Icelandic": "áðéíóúýþæö",
    "Finnish": "äöå", "Estonian": "äöõüšž", "Latvian": "āčēģīķļņšūž", "Lithuanian": "ąčęėįšųūž", "Polish": "ąćęłńóśźż",
    "Czech": "áčďéěíňóřšťúůýž", "Slovak": "áäčďéíĺľňóôŕšťúýž", "Hungarian": "áéíóöőúüű", "Romanian": "ăâîșțşţ",
    "Croatian": "čćđšž", "Slovenian": "čšž", "Albanian": "çë", "Turkish": "çğıİöşü", "Azerbaijani": "əğıöşüç",
    "Maltese": "ċġħż",
    "Welsh": "âêîôûŵŷ", "Irish": "áéíóúḃċḋ", "Basque": "ñç", "Catalan": "àçèéíïòóúü·",
    "Vietnamese": "ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệ",
    "Indonesian": "", "Swahili": "", "Yoruba": "ẹọṣàáèé\u0300\u0301", "Hausa": "ɓɗƙƴ", "Esperanto": "ĉĝĥĵŝŭ",
    "Russian": (0x410, 0x44F), "Ukrainian": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя'", "Bulgarian": (0x410, 0x44F),
    "Serbian": "абвгдђежзијклљмнњопрстћуфхцчџш", "Kazakh": "әғқңөұүһі", "Greek": (0x386, 0x3CE), "Armenian": (0x531, 0x587),
    "Georgian": (0x10D0, 0x10FA), "Hebrew": (0x591, 0x5EA), "Yiddish": "אַאָבּכּפּפֿשׂתּײַ", "Arabic": (0x621, 0x652),
    "Persian": "پچژگکیءآ\u200c", "Urdu": "ٹڈڑںھہےۓ", "Hindi": (0x901, 0x94D), "Bengali": (0x981, 0x9CD),
    "Tamil": (0xB82, 0xBCD),
    "Telugu": (0xC01, 0xC4D), "Malayalam": (0xD02, 0xD4D), "Thai": (0xE01, 0xE5B), "Khmer": (0x1780, 0x17D3),
    "Amharic": (0x1200, 0x135A), "Japanese": (0x3041, 0x30FE), "Chinese": (0x4E00, 0x9FA5), "Korean": (0xAC00, 0xD7A3),
}  # fmt: skip
SPACES = [
    " ",
    " ",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "\u2028",
    "\u200b",
    "\u3000",
    "\ufeff",
]
SIGNS = [
    *".,;:!?-_=+*/\\|@#$%^&~`'\"()[]{}<>", "``", "''", "…", "—", "“", "”", "€", "№", "½", "²", "ﬁ", "Ⅳ", "①", "カ",
    "Å", "🙂", "👩‍👩‍👧",
    "🇫🇮", "☎️", "e\u0301", "\u0301", "\u0308", "x\u0301\u0323", "\U000e0041", "�", "\x00", "\x07", "\x7f", "\xad",
    "12", "3.14", "٣",
]  # fmt: skip
# What tokenizers write for something else.
MARKS = [
    "▁", "▁▁", "Ġ", "Ċ", "##", "##ing", "</w>", "<0x41>", "<0xFF>", "<s>", "</s>", "<unk>", "[UNK]",
    "<|endoftext|>", "<unused0>",
    "<mask>", "<sep>", " <mask> ", "<left>", "  <left>", "<right>  ", " Ünïcödé ", "naïve", "two words", "word",
    "words", "[unused0]",
]  # fmt: skip


@functools.cache
def corpora() -> list[str]:
    """Texts in some 70 languages where the lab's data is there."""
    files = sorted(CORPORA.rglob("valid.parquet"))
    if not files:
        return []
    import pyarrow.parquet as pq

    texts = []
    for file in files:
        table = pq.read_table(file).slice(0, 2000)
        strings = [column for column in table.column_names if str(table.schema.field(column).type).endswith("string")]
        texts += [text for column in strings for text in table.column(column).to_pylist()[::40] if text]
    return texts


class Strings:
    """Random strings; the same ones for the same seed."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.kinds = [self.unicode, self.language, self.language, self.code, self.spaces, self.signs, self.binary, self.marks]
        if corpora():
            self.kinds.append(self.corpus)

    def one(self) -> str:
        return "".join(self.rng.choice(self.kinds)() for _ in range(self.rng.choice((1, 1, 2, 4))))

    def unicode(self) -> str:
        top = self.rng.choice((0x80, 0x800, 0x10000, 0x30000, 0x110000))
        points = (self.rng.randrange(top) for _ in range(self.rng.randrange(8)))
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    def language(self) -> str:
        letters = self.rng.choice(list(LANGUAGES.values()))
        if isinstance(letters, str):
            letters += "etaoinshr" if all(ord(c) < 0x250 or 0x1E00 <= ord(c) < 0x1F00 for c in letters) else ""
            letter = functools.partial(self.rng.choice, letters)
        else:
            letter = lambda: chr(self.rng.randint(*letters))  # noqa: E731
        words = ("".join(letter() for _ in range(self.rng.randint(1, 7))) for _ in range(self.rng.randint(1, 4)))
        return " ".join(self.rng.choice((w, w, w.title(), w.upper())) for w in words) + self.rng.choice(("", " ", ". ", "\n"))

    def code(self) -> str:
        return self._slice(TEXTS)

    def corpus(self) -> str:
        return self._slice(corpora())

    def _slice(self, texts: list[str]) -> str:
        text = self.rng.choice(texts)
        start = self.rng.randrange(len(text))
        return text[start : start + self.rng.randint(1, 50)]

    def spaces(self) -> str:
        return "".join(self.rng.choice(SPACES) * self.rng.choice((1, 1, 2, 3, 8, 30)) for _ in range(self.rng.randint(1, 3)))

    def signs(self) -> str:
        return "".join(self.rng.choice(SIGNS) for _ in range(self.rng.randint(1, 6)))

    def binary(self) -> str:
        data = self.rng.randbytes(self.rng.randint(1, 8))
        return data.decode(errors="replace") if self.rng.random() < 0.5 else data.decode("latin-1")

    def marks(self) -> str:
        return self.rng.choice(MARKS) + self.rng.choice(("", "", " ", "a", " b"))


def strings(seed: int, count: int) -> list[str]:
    source = Strings(seed)
    return [source.one() for _ in range(count)]


def test_the_strings_are_of_all_sorts():
    assert len(LANGUAGES) == 60
    texts = strings(0, 3000)
    seen = set("".join(texts))
    assert {unicodedata.category(c)[0] for c in seen} == set("LMNPSZC") and max(seen) > "\U000f0000"
    assert all(any(lo <= ord(c) <= hi for c in seen) for lo, hi in (x for x in LANGUAGES.values() if not isinstance(x, str)))
    assert strings(0, 10) == texts[:10] and strings(1, 10) != texts[:10]


def read(vocab, texts: list[str]) -> list[tuple[bytes, list[int]]]:
    """What the tokens of each text spell, and their ids."""
    encoded = vocab.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [(b"".join(map(vocab.tokens.__getitem__, ids)), ids) for ids in (e.ids for e in encoded)]


def wrong(vocab, texts: list[str]) -> list[str]:
    """Those of the texts whose tokens spell something else than `vocab.normalise` says."""
    # In Unigrams "<0x41>" can be a piece, the byte.
    ambiguous = vocab.format.byte_tokens and vocab.kind == "Unigram"
    found = []
    for text, expected, (got, ids) in zip(texts, vocab.normaliser(texts), read(vocab, texts)):
        if got == expected or (ambiguous and re.search("<0x..>", text)):
            continue
        if "characters outside the vocabulary" in vocab.losses and agrees(vocab, text, expected, ids):
            continue
        found.append(text)
    return found


def agrees(vocab, text: str, expected: bytes, ids: list[int]) -> bool:
    """Whether the ids spell `expected` with one or more characters for each unknown token.

    Without such a token, a BPE leaves out the characters that it lacks.
    """
    unknown = vocab.special.get(vocab.format.unknown)
    if unknown is None:
        known = [c for c in map(str.encode, expected.decode()) if c in vocab.id_of or all(bytes([b]) in vocab.id_of for b in c)]
        return b"".join(vocab.tokens[i] for i in ids) == b"".join(known)
    least = 0 if vocab.format.unknown in text else 1  # spelled out, it stands for nothing
    runs, gaps = [b""], [0]
    for i in ids:
        if i == unknown:
            runs.append(b"")
            gaps.append(least)
        else:
            runs[-1] += vocab.tokens[i]
    # Between unknown tokens, each run of known ones at the first place where it can be; the last one at the end.
    place = 0
    for number, (run, gap) in enumerate(zip(runs, gaps)):
        last = number == len(runs) - 1
        found = len(expected) - len(run) if last else expected.find(run, place + gap)
        if found < place + gap or (number == 0 and found > 0) or expected[found : found + len(run)] != run:
            return False
        place = found + len(run)
    return len(runs) > 1


def shrunk(vocab, text: str) -> str:
    """The smallest part of the text that is still wrong."""
    smaller = True
    while smaller:
        smaller = False
        for size in (len(text) // 2, len(text) // 4, 3, 2, 1):
            parts = [text[:i] + text[i + size :] for i in range(len(text) - size + 1)] if size else []
            if bad := wrong(vocab, parts):
                text, smaller = bad[0], True
                break
    return text


@pytest.mark.parametrize("name", NAMES)
def test_tokens_spell_the_normalised_text(name):
    vocab = vocabulary(name)
    texts = strings(NAMES.index(name), STRINGS)
    if bad := wrong(vocab, texts):
        text = shrunk(vocab, bad[0])
        tokens = vocab.tokenizer.encode(text, add_special_tokens=False).tokens
        got = read(vocab, [text])[0][0]
        pytest.fail(f"{len(bad)} of {len(texts)}; {text!r} is {vocab.normalise(text)!r}, but {tokens} spell {got!r}")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_lost_or_added_than_is_declared(name):
    """After forgetting what `losses` and `rules` name, the normalised text is the text."""
    vocab = vocabulary(name)
    added = sorted((t.content for t in vocab.tokenizer.get_added_tokens_decoder().values()), key=len, reverse=True)
    # Added tokens may take the spaces beside them; they are looked for before and after normalising.
    marks = re.compile("|".join(rf"\s*{re.escape(content)}\s*" for content in added) or "(?!)", re.I)
    if vocab.format.space:
        marks = re.compile(marks.pattern + "|" + vocab.format.space, re.I)
    texts = [marks.sub("", text) for text in strings(1000 + NAMES.index(name), 400)]
    texts = [text for text in texts if not marks.search(text) and not marks.search(unicodedata.normalize("NFKD", text))]
    assert len(texts) > 200
    for text, got in zip(texts, vocab.normaliser(texts)):
        before, after = forgotten(vocab, text, before=True), forgotten(vocab, got.decode(), before=False)
        assert before == after, (text, got, vocab.losses, vocab.rules)


def forgotten(vocab, text: str, *, before: bool) -> str:
    """The text without what is declared to be lost; with what is declared to be added, if it is the one before normalising."""
    losses, rules = vocab.losses, " ".join(vocab.rules)
    for loss in losses:
        if found := re.fullmatch("the difference between '(.*)' and '(.*)'|the difference between \"(.*)\" and '(.*)'", loss):
            one, other = [group for group in found.groups() if group is not None]
            text = text.replace(one, other)
    if "control characters" in losses:  # also those without a width, and a replacement character
        text = "".join(c for c in text if c.isspace() or (unicodedata.category(c)[0] != "C" and c != "\ufffd"))
    if "compatibility forms (NFKC)" in losses:
        text = unicodedata.normalize("NFKC", text)
    if "accents" in losses or "accents on compatibility forms" in losses:
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c)[0] != "M")
    if "letter case" in losses:
        text = "".join(map(str.lower, text)).replace("ς", "σ")  # which of the two depends on what stands beside it
    if "composition (NFC)" in losses:
        text = unicodedata.normalize("NFC", text)
    if "spaces" in losses:
        return "".join(text.split())
    if "line breaks" in losses:
        text = " ".join(re.split(r"\s", text))
    if "runs of spaces" in losses:
        text = re.sub(" +", " ", text)
    if "a space at the end" in losses:
        text = text.rstrip(" ")
    if "a space at the beginning" in losses:
        text = text.lstrip(" ")
    elif before and text and "a space is put before every text" in rules:
        text = " " + text
    return text


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_bytes_that_are_no_text(name):
    """What no text has, but generation can end in: any bytes, in the byte-level alphabet, spelled by the model itself."""
    vocab = vocabulary(name)
    rng = np.random.default_rng(0)
    ids = {piece: i for i, piece in enumerate(to_alphabet(token) for token in vocab.tokens)}
    for size in rng.integers(1, 12, 300):
        data = rng.bytes(int(size))
        pieces = vocab.tokenizer.model.tokenize(to_alphabet(data))
        assert b"".join(vocab.tokens[piece.id] for piece in pieces) == data
        assert all(ids[piece.value] == piece.id for piece in pieces)


def test_byte_pieces_are_bytes():
    for name in ("sentencepiece-bpe", "like gemma", "like llama2", *({"mistral-v1"} & {*FOLDERS})):
        vocab = vocabulary(name)
        for token, i in vocab.tokenizer.get_vocab().items():
            if match := BYTE_TOKEN.fullmatch(token):
                byte = bytes([int(match[1], 16)])
                assert vocab.tokens[i] == byte or (vocab.tokens[i] == b"" and vocab.id_of[byte] != i)


def test_reading_is_the_same_each_time():
    """The library hands out a vocabulary in a random order."""
    from zett.vocab.load import vocabulary_of

    for name in ("unigram", "like gemma", "added tokens"):
        made = json.dumps(
            [token.hex() for token in vocabulary_of(MADE.get(name, lambda: vocabulary("unigram").tokenizer)()).tokens]
        )
        assert made == json.dumps([token.hex() for token in vocabulary(name).tokens])
