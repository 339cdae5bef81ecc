"""One evaluation: what every target and every method is compared on, and the results of each."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zett.errors import UserError
from zett.evaluate.excess import MAX_PIECES, excess_bits, excess_of
from zett.evaluate.lost import bytes_lost
from zett.evaluate.results import AS_IT_IS, Excess, TargetResult
from zett.evaluate.statistics import bootstrap_draws, compared
from zett.evaluate.tasks import EvalTask, scored
from zett.evaluate.tasks.bits_per_byte import BitsPerByte
from zett.evaluate.tasks.encoded import encode_items
from zett.evaluate.tasks.items import Items
from zett.lms.base import BaseModel
from zett.methods import Method
from zett.progress import phase
from zett.vocab import Vocabulary, surface_forms


@dataclasses.dataclass(frozen=True)
class Trial:
    """original: scores of the base model itself; details: what else the task says of it. draws: of the bootstrap. tokens: bits
    of the original's tokens, or None.
    """

    base: BaseModel
    task: EvalTask
    items: Items
    methods: Mapping[str, Method]
    original: np.ndarray
    draws: np.ndarray
    seed: int
    details: dict[str, float]
    tokens: np.ndarray | None = None

    def of_target(self, name: str, target: Vocabulary, runs, whole: Callable[[], BaseModel] | None = None) -> TargetResult:
        """All methods on one target. runs: the progress bar. whole: reads a model with this vocabulary to measure as it is."""
        made: dict[str, Callable[[], BaseModel]] = {} if whole is None else {AS_IT_IS: whole}
        made |= {key: functools.partial(self._with_rows_of, method, target) for key, method in self.methods.items()}
        scores, details, seconds, excess = {}, {}, {}, {}
        for key, make in made.items():
            runs.set_description(f"{name}, {key}")
            clock = time.perf_counter()
            with phase(f"{name}, {key}: {'reading' if make is whole else 'making rows'} and scoring"):
                model = make()
                seconds[key] = time.perf_counter() - clock
                if self.tokens is None:
                    scores[key], details[key] = scored(self.task, model, self.items)
                else:
                    scores[key], excess[key] = self._by_token(model, self.tokens)
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
            excess=excess or None,
        )

    def _with_rows_of(self, method: Method, target: Vocabulary) -> BaseModel:
        return method.model(self.base, target, seed=self.seed)

    def _by_token(self, model: BaseModel, tokens: np.ndarray) -> tuple[np.ndarray, Excess]:
        """The scores of a model with a target's vocabulary, and where they are worse than the original's. tokens: see above."""
        both = (model.vocab, self.base.vocab)
        encoded, source = (encode_items(self.items, vocab) for vocab in both)
        bits = token_task(self.task).token_bits(model, self.items)
        excess, without = excess_bits(both[0], encoded, bits, both[1], source, tokens)
        return bits.sum(1), excess_of(*both, encoded, excess, without, self.items.weights.sum())

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


def start_trial(
    base: BaseModel, task: EvalTask, texts: Sequence[str], methods: Mapping[str, Method], seed: int, *, classes: bool = False
) -> Trial:
    """Makes items of the texts, and scores the original. classes: find out, too, where bits are lost. UserError: see below."""
    by_token = token_task(task) if classes else None
    items = task.items(base, texts)
    with phase("compiling, and scoring the original"):
        if by_token is None:
            tokens, (original, details) = None, scored(task, base, items)
        else:
            tokens, details = by_token.token_bits(base, items), {}
            original = tokens.sum(1)
    return Trial(base, task, items, methods, original, bootstrap_draws(len(items), seed), seed, details, tokens)


def token_task(task: EvalTask) -> BitsPerByte:
    """The task, if it says what each token costs. UserError if not."""
    if not isinstance(task, BitsPerByte):
        raise UserError(
            f"classes of tokens are there for {BitsPerByte.unit}, and this model is measured in {task.unit}, of which single "
            "tokens have no part of their own; leave classes out"
        )
    return task
