"""A sampler that is quick to make, and strings that are hard to cut."""

import dataclasses
import hashlib
import random

from vocabularies import ODD, vocabulary

from zett.config import SamplerConfig
from zett.data.sources import open_text
from zett.vocab.sampling.sampler import Sampler

CONFIG = SamplerConfig(
    min_size=600, max_size=1200, pool=2, pool_bytes=60_000, inventory=3000, inventory_bytes=200_000, shards=4, wordpiece=0.3,
    superword=0.2,
)  # fmt: skip
HINDI = "हिन्दी में लिखा हुआ है और किताबें विद्यार्थियों को पढ़नी चाहिए"
STRANGE = ["<|endoftext|><|pad|><unk><0x41>", "\0\0\0 a\0", "ΑΣ ΣΑΣ. İSTANBUL ǅ", "", "\n", "x" * 300, HINDI, "".join(ODD)]


def make(text, *, seed=0, **changes) -> Sampler:
    return Sampler(dataclasses.replace(CONFIG, **changes), [text], vocabulary("bpe"), 6, seed)


def content(draw):
    arrays = [getattr(draw.forms, f.name).tobytes() for f in dataclasses.fields(draw.forms)]
    ids, lengths = draw.encode(ODD, 50)
    return draw.kind, draw.tokenizer.to_str(), list(draw.tokens), arrays, ids.tobytes(), lengths.tolist(), draw.text_number


def digests(folder: str, changes: dict, steps: range) -> list[str]:
    """Of draws made in this process."""
    sampler = make(open_text(folder), **changes)
    return [hashlib.sha256(repr(content(sampler.draw(step))).encode()).hexdigest() for step in steps]


def random_strings(number: int) -> list[str]:
    """Characters of all classes that the regexes tell apart, and of all planes."""
    rng = random.Random(0)
    classes = "aZàé\u0301\u093fह1२٣\u00bd \u3000\u00a0\u2028\t\n\r\x1c\x85.'-_▁本🙂sdmtrevl\ufeff\U00010348\U000e0041"
    strings = ["".join(rng.choices(classes, k=rng.randint(1, 30))) for _ in range(number)]
    return strings + ["".join(map(chr, (rng.randrange(0xD800) for _ in range(20)))) for _ in range(number // 10)]
