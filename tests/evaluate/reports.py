"""Reports of evaluations that nobody ran."""

import dataclasses

from zett.evaluate.results import Report, Score, TargetResult

SCORE = Score(
    bits_per_byte=2.5, ratio=1.25, ratio_error=0.02, fvt_gap_left=1.0, fvt_gap_left_error=0.0, seconds=0.1
)  # fmt: skip


def result(name: str, ratios: dict[str, float], *, bytes_lost: float = 0.0, relative_length: float = 1.1) -> TargetResult:
    """A target with these ratios by method."""
    scores = {method: dataclasses.replace(SCORE, ratio=r, ratio_error=0.05 * r) for method, r in ratios.items()}
    losses = ("case",) if bytes_lost else ()
    return TargetResult(name, "bpe", 350, 0.41, relative_length, 0.8, bytes_lost, losses, scores)


def report(ratios: dict[str, list[float]], names: list[str], *, lossy: str | None = None) -> Report:
    """ratios: of each method, by target. lossy: the target that drops some of the text."""
    targets = [
        result(
            name,
            {method: of[n] for method, of in ratios.items()},
            bytes_lost=0.1 if name == lossy else 0.0,
            relative_length=(0.4, 1, 7)[n % 3],
        )
        for n, name in enumerate(names)
    ]
    return Report(
        base={"name": "models/tiny", "fingerprint": "0" * 64},
        text={"source": "python", "split": "valid", "windows": 16, "window_bytes": 128, "bytes": 2000, "sha256": "0" * 64},
        original={"bits_per_byte": 2.0, "tokens_per_byte": 0.4, "vocab_size": 400, "bytes_lost": 0.0},
        hypernets={},
        targets=targets,
        settings={"measure": "bits per byte", "seed": 0},
        environment={"versions": {"jax": "0"}},
    )


FIVE = {
    "quickstart": [1.21, 1.19, 1.2],
    "shipped": [1.1, 1.12, 1.13],
    "fvt": [1.25] * 3,
    "mean": [2.1] * 3,
    "random": [2.2] * 3,
}
NAMES = ["bpe-350", "unigram-350", "wordpiece-350"]
