"""The queue of newest texts."""

import collections
import dataclasses

import numpy as np
import pytest
import regex
from samplers import CONFIG

from zett.vocab.regexes import WORD_REGEX
from zett.vocab.sampling.counts import REQUIRED
from zett.vocab.sampling.queue import TextQueue


def test_the_queue_moves_on(text):
    config = dataclasses.replace(CONFIG, queue=10, queue_step=4)
    queue = TextQueue([text], np.ones(1), config, 0)
    windows = [queue.texts(step, None) for step in range(3)]
    assert windows[0][4:] == windows[1][:6] and windows[1][4:] == windows[2][:6]
    assert len({*windows[0]}) > 5 and all(len(t) <= 2000 and any(t in document for document in text) for t in windows[0])
    tokens, counts = queue.count(1, None)
    words = collections.Counter(word for t in windows[1] for word in regex.findall(WORD_REGEX, t))
    expected = collections.Counter()
    for word, n in words.items():
        for start in range(len(word[:64]) * (n > 1)):
            for end in range(start + 1, len(word[:64]) + 1):
                if 2 <= len(part := word[start:end].encode()) <= 16:
                    expected[part] += n
    found = dict(zip(tokens, counts[0] * sum(expected.values())))
    best = sorted(expected, key=lambda part: -expected[part] * len(part))[:500]
    assert len(found) == min(config.inventory, len({*expected, *REQUIRED} - {*REQUIRED})) + len(REQUIRED)
    for part in best:
        assert found[part] / found[best[0]] == pytest.approx(expected[part] / expected[best[0]], rel=1e-4)
