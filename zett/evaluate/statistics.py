"""Ratios to the original model with their errors: one paired bootstrap for whatever the scores are."""

import numpy as np

from zett.evaluate.results import Score
from zett.evaluate.tasks.items import Items

RESAMPLES = 1000


def bootstrap_draws(number: int, seed: int) -> np.ndarray:
    """How often each resample holds each item: `[RESAMPLES, number]`. The same draws serve everything, so they are paired."""
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(np.float64)


def compared(
    scores: dict[str, np.ndarray], original: np.ndarray, items: Items, draws: np.ndarray, seconds: dict[str, float],
    details: dict[str, dict[str, float]] | None = None,
) -> dict[str, Score]:  # fmt: skip
    """The methods' scores of all items `[N]`, by name, beside those of the original model. details: what else a task says."""
    base, base_draws = original.sum(), draws @ original
    fvt = scores.get("fvt")
    results = {}
    for name, values in scores.items():
        gap = gap_error = None
        if fvt is not None and fvt.sum() > base:
            gap = float((values.sum() - base) / (fvt.sum() - base))
            gap_error = float(np.std((draws @ values - base_draws) / (draws @ fvt - base_draws)))
        results[name] = Score(
            bits_per_byte=items.mean(values),
            ratio=float(values.sum() / base),
            ratio_error=float(np.std(draws @ values / base_draws)),
            fvt_gap_left=gap,
            fvt_gap_left_error=gap_error,
            seconds=seconds[name],
            details=(details or {}).get(name, {}),
        )
    return results
