"""Regular expressions of other people's tokenizers, tried out with limited time before any text is cut with them.

A pattern such as "(a+)+$" takes time that doubles with every letter: the tokenizers library gives up and panics in the middle
of a text, or never returns. So each pattern is first tried, in a process of its own, on texts that are made from the pattern
itself: long runs of what it names, with something at the end that it does not match.

It does not find patterns whose bad texts consist of more than two parts or of characters that the pattern does not spell, nor
patterns that are merely slow (quadratic). On such a text the library reaches its own limit of steps and panics, which the
command line reports like any other error.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator

from zett.errors import UserError
from zett.vocab.bytes import components
from zett.vocab.regexes import PIECE_REGEX, STYLES, WORD_REGEX

OWN = {WORD_REGEX, PIECE_REGEX, *STYLES}
CPU_SECONDS = 10  # of the process alone, however busy the machine is; a sound pattern takes a tenth of a second
WALL_SECONDS = 300  # for platforms on which the processor time cannot be limited
LONG, RUN, UNITS = 1000, 40, 32
# Characters of the classes that patterns name; and what may follow a run, so that the pattern does not match.
SAMPLES = "aA1 \n!_'é中\u0301"
BREAKS = ("", "\0", "!", "a", " ")

_TRY = f"""
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
except ImportError:
    pass
from tokenizers import Regex, pre_tokenizers
pattern, texts = json.load(sys.stdin)
cut = pre_tokenizers.Split(Regex(pattern), "isolated")
for number, text in enumerate(texts):
    print(number, flush=True)
    cut.pre_tokenize_str(text)
print("done")
"""


def check_patterns(tokenizer) -> None:
    """UserError for a `tokenizers.Tokenizer` with a pattern that takes far too long."""
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder):
        for step in components(part):
            pattern = step["pattern"].get("Regex") if isinstance(step.get("pattern"), dict) else None
            if pattern is None or pattern in OWN:
                continue
            text = slow_text(pattern)
            if text is not None:
                raise UserError(
                    f"the pattern {pattern!r} of its {step['type']} takes far too long on texts such as {text[:24]!r}...; "
                    "no text can be cut with such a pattern: write it without repetitions inside of repetitions"
                )


@functools.cache
def slow_text(pattern: str) -> str | None:
    """A text on which the tokenizers library cannot match `pattern` in any reasonable time; None if none is found."""
    tried = list(texts_for(pattern))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRY], input=json.dumps([pattern, tried]), capture_output=True, encoding="utf-8",
            timeout=WALL_SECONDS,
        )  # fmt: skip
        lines = done.stdout.split()
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode().split()
    # No output means that the process failed before its first text, which says nothing about the pattern.
    return None if not lines or lines[-1] == "done" else tried[int(lines[-1])]


def texts_for(pattern: str) -> Iterator[str]:
    """Texts that are bad for patterns like this one: runs of its words and letters, and of usual ones, that fail at the end."""
    words = re.findall(r"[^\W_]{2,}", pattern)
    units = list(dict.fromkeys([*SAMPLES, *words, *(c for c in pattern if c not in "\\()[]{}?*+|^$")]))[:UNITS]
    # A matcher that first looks for characters which every match needs finds them here, and goes on.
    rest = "".join(units)
    for unit in units:
        for end in BREAKS:
            yield unit * RUN + (end and end + rest)
    for unit in units:
        yield unit * LONG + "\0" + rest
    for one in units:
        for other in units:
            if one != other:
                yield (one + other) * RUN + "\0" + rest
                yield one + other * RUN + "\0" + rest
