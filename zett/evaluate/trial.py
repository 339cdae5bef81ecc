"""One evaluation: what every target and every method is compared on, and the results of each."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from zett.evaluate.lost import bytes_lost
from zett.evaluate.results import TargetResult
from zett.evaluate.statistics import bootstrap_draws, compared
from zett.evaluate.tasks import EvalTask, scored
from zett.evaluate.tasks.encoded import encode_items
from zett.evaluate.tasks.items import Items
from zett.lms.base import BaseModel
from zett.methods import Method
from zett.progress import phase
from zett.vocab import Vocabulary, surface_forms

MAX_PIECES = 64


@dataclasses.dataclass(frozen=True)
class Trial:
    """original: scores of the base model itself; details: what else the task says of it. draws: of the bootstrap."""

    base: BaseModel
    task: EvalTask
    items: Items
    methods: Mapping[str, Method]
    original: np.ndarray
    draws: np.ndarray
    seed: int
    details: dict[str, float]

    def of_target(self, name: str, target: Vocabulary, runs) -> TargetResult:
        """All methods on one target. runs: the progress bar."""
        scores, details, seconds = {}, {}, {}
        for key, method in self.methods.items():
            runs.set_description(f"{name}, {key}")
            clock = time.perf_counter()
            with phase(f"{name}, {key}: making rows and scoring them"):
                table = method(self.base, target, seed=self.seed)
                seconds[key] = time.perf_counter() - clock
                scores[key], details[key] = scored(self.task, self.base.with_vocabulary(table, target), self.items)
            runs.update()
        encoded, source = encode_items(self.items, target), self.base.vocab
        return TargetResult(
            name=name,
            kind=target.kind,
            vocab_size=len(target),
            tokens_per_byte=encoded.num_tokens / self._bytes,
            relative_length=encoded.num_tokens / encode_items(self.items, source).num_tokens,
            shared=float(np.mean(surface_forms(target, source, MAX_PIECES).same >= 0)),
            bytes_lost=bytes_lost(self.items.texts, encoded, target),
            losses=tuple(target.losses),
            scores=compared(scores, self.original, self.items, self.draws, seconds, details),
        )

    def of_original(self) -> dict:
        """The base model with its own tokenizer, as in `Report.original`."""
        vocab = self.base.vocab
        encoded = encode_items(self.items, vocab)
        return {
            "bits_per_byte": self.items.mean(self.original),
            "tokens_per_byte": encoded.num_tokens / self._bytes,
            "vocab_size": len(vocab),
            "bytes_lost": bytes_lost(self.items.texts, encoded, vocab),
            **({"details": self.details} if self.details else {}),
        }

    @property
    def _bytes(self) -> int:
        return sum(len(text.encode()) for text in self.items.texts)


def start_trial(base: BaseModel, task: EvalTask, texts: Sequence[str], methods: Mapping[str, Method], seed: int) -> Trial:
    """Makes items of the texts, and scores the original."""
    items = task.items(base, texts)
    with phase("compiling, and scoring the original"):
        original, details = scored(task, base, items)
    return Trial(base, task, items, methods, original, bootstrap_draws(len(items), seed), seed, details)
