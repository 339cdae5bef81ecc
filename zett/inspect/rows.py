"""Which rows of a model's table stand out: by their length, by their neighbours, or since they are no use at all.

What to look for after a transfer: a token that a method gave a row which the model takes for something else, or which draws
probability wherever it can. It is found among the rows themselves, whatever they were made by.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from zett import progress
from zett.errors import UserError
from zett.files.folders import MARKER
from zett.files.jsonfile import json_or_empty
from zett.inspect.describe import show_id
from zett.lms.base import load_base_model
from zett.methods import make_method
from zett.vocab import Vocabulary

DEVIATIONS = 6.0  # of the logarithm of norms from their median, in robust standard deviations: further is "far"
ALIKE = 0.99  # cosine from which two rows are almost the same
HUB = 0.01  # share of all rows that have one row as their nearest neighbour, from which that is a hub; at least
FEWEST = 20  # rows
LISTED = 20  # rows of each kind
CHUNK = 256  # rows compared with all others at a time

KINDS = {
    "not_finite": "with infinities or NaN: text with these tokens has no probabilities",
    "zero": "all zero: tokens that say nothing, and that the model cannot tell apart",
    "duplicates": "the same as another row: tokens that the model cannot tell apart",
    "long": f"much longer than others: more than {DEVIATIONS:g} robust deviations of the logarithm of norms",
    "short": f"much shorter than others: more than {DEVIATIONS:g} robust deviations of the logarithm of norms",
    "alike": f"almost the same as another row (cosine of at least {ALIKE:g}), though not quite",
    "hubs": "hubs: the nearest neighbour of unusually many other rows",
}
BREAKERS = (
    'rows were made from those of the donor {donor}. A donor can carry "breaker tokens" (arXiv 2601.00065): tokens that do '
    "nothing there, with rows that the method turns into a strong direction of this model, which then writes or follows them "
    "where it should not. Look at the rows that stand out and are new; but one that is made with care need not stand out, so "
    "take donors that you trust"
)


def inspect_rows(model: str | Path) -> dict:
    """The rows of a `model` that stand out, as a JSON-able dict; model: what `load_base_model` takes. Raises UserError.

    Keys: "model" ("name", "ids", "width", "tied", and "command" and "method" where zett wrote it), "sides" ("input" and, of an
    untied model, "output", each as of `describe_rows`), "donor" (None, or what to know of it in words), "kinds" (in words).
    """
    with progress.phase(f"reading the rows of {model}"):
        base = load_base_model(model, body=False)
    record = json_or_empty(base.folder / MARKER)
    settings = found if isinstance(found := record.get("settings"), dict) else {}
    sides = {"input": base.table.input, "output": base.table.output}
    about = {
        "name": str(model), "ids": len(base.vocab), "width": int(base.table.input.shape[1]), "tied": base.table.output is None,
        "command": record.get("command"), "method": settings.get("method"),
    }  # fmt: skip
    described = {side: describe_rows(np.asarray(rows), base.vocab, side) for side, rows in sides.items() if rows is not None}
    donor = donor_of(settings.get("method"))
    words = None if donor is None else BREAKERS.format(donor=donor)
    return {"model": about, "sides": described, "donor": words, "kinds": KINDS}


def donor_of(method: object) -> str | None:
    """The donor of a method as `zett.json` records it."""
    try:
        return getattr(make_method(method), "donor", None) if isinstance(method, str) else None
    except UserError:  # of another version, or one of somebody's own
        return None


def describe_rows(rows: np.ndarray, vocab: Vocabulary, side: str) -> dict:
    """Of rows `[V, D]`: "norm" (median, quartiles, deviation) and, by kind (see KINDS), their "number" and some "rows".

    Each of these has "token" and "id", and what fits: "norm" and "deviations", "neighbour" (a token) and "cosine", or "count",
    of the rows whose neighbour it is; what stands out most comes first. UserError if no row is of any use. side: its name.
    """
    norms = row_norms(rows)
    sound = np.flatnonzero(norms > 0)
    if not len(sound):
        raise UserError(f"all {side} rows are zero or have values that are not finite numbers")
    same = _first_equal(rows)
    distinct = sound[same[sound] == sound]
    nearest, cosines, counts = neighbours(rows, norms, distinct, side)
    far, deviation = _deviations(norms, sound)
    quartiles = np.quantile(norms[sound], [0.25, 0.5, 0.75]).tolist()

    def listed(ids: np.ndarray, by: np.ndarray | None = None, **more: Callable[[int], object]) -> dict:
        ids = ids if by is None else ids[np.argsort(-by[ids], kind="stable")]
        first = ids[:LISTED].tolist()
        shown = [{"token": row_name(vocab, i), "id": i} | {key: of(i) for key, of in more.items()} for i in first]
        return {"number": len(ids), "rows": shown}

    def length(i: int) -> float:
        return float(norms[i])

    def another(i: int) -> str:
        return row_name(vocab, int(nearest[i] if nearest[i] >= 0 else same[i]))

    hubs = np.flatnonzero(counts >= max(FEWEST, HUB * len(distinct)))
    return {
        "norm": {"median": quartiles[1], "quartiles": quartiles[::2], "deviation": deviation},
        "not_finite": listed(np.flatnonzero(np.isnan(norms))),
        "zero": listed(np.flatnonzero(norms == 0)),
        "duplicates": listed(sound[same[sound] < sound], neighbour=another),
        "long": listed(np.flatnonzero(far > DEVIATIONS), far, norm=length, deviations=lambda i: float(far[i])),
        "short": listed(np.flatnonzero(far < -DEVIATIONS), -far, norm=length, deviations=lambda i: float(far[i])),
        "alike": listed(np.flatnonzero(cosines >= ALIKE), cosines, neighbour=another, cosine=lambda i: float(cosines[i])),
        "hubs": listed(hubs, counts, count=lambda i: int(counts[i])),
    }


def row_norms(rows: np.ndarray) -> np.ndarray:
    """`[V]` float64, NaN where a row has infinities or NaN."""
    norms = np.empty(len(rows))
    for start in range(0, len(rows), 4096):  # in parts, since a float64 copy of all rows may not fit
        norms[start : start + 4096] = np.linalg.norm(np.asarray(rows[start : start + 4096], np.float64), axis=1)
    return np.where(np.isfinite(norms), norms, np.nan)


def _deviations(norms: np.ndarray, sound: np.ndarray) -> tuple[np.ndarray, float]:
    """How far the logarithms of norms are from their median `[V]`, in robust standard deviations, and how much one is."""
    logs = np.log(norms[sound])
    middle = np.median(logs)
    # Of a normal distribution this is the standard deviation. Where most rows have one length, a percent is one.
    deviation = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.01)
    far = np.zeros(len(norms))
    far[sound] = (logs - middle) / deviation
    return far, deviation


def _first_equal(rows: np.ndarray) -> np.ndarray:
    """`[V]` the lowest id with the same row."""
    seen: dict[bytes, int] = {}
    return np.asarray([seen.setdefault(np.ascontiguousarray(row).tobytes(), i) for i, row in enumerate(rows)], np.int64)


def neighbours(rows: np.ndarray, norms: np.ndarray, ids: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of the rows `ids` the one among them with the highest cosine, that cosine, and how often each row is that one.

    All `[V]`; -1, 0 and 0 of other rows. The cosines of CHUNK rows are in memory at a time.
    """
    nearest, cosines = np.full(len(rows), -1, np.int64), np.zeros(len(rows))
    padded = -(-len(ids) // CHUNK) * CHUNK
    units = np.zeros((padded, rows.shape[1]), np.float32)
    for start in range(0, len(ids), 4096):
        some = ids[start : start + 4096]
        units[start : start + len(some)] = np.asarray(rows[some], np.float64) / norms[some, None]
    placed = jnp.asarray(units)
    with progress.bar(len(ids), f"comparing {side} rows", "row") as advance:
        for start in range(0, len(ids) if len(ids) > 1 else 0, CHUNK):
            some = ids[start : start + CHUNK]
            best, cosine = (np.asarray(x)[: len(some)] for x in _nearest(placed, start, len(ids)))
            nearest[some], cosines[some] = ids[best], cosine
            advance(len(some))
    return nearest, cosines, np.bincount(nearest[nearest >= 0], minlength=len(rows))


@jax.jit
def _nearest(units_VD, start, number):
    """Of CHUNK unit rows from `start` on: which of the first `number` others is nearest, and its cosine."""
    chunk_CD = jax.lax.dynamic_slice_in_dim(units_VD, start, CHUNK)
    cosines_CV = jnp.einsum("cd,vd->cv", chunk_CD, units_VD, precision="highest")
    others = jnp.arange(len(units_VD))
    valid_CV = (others < number) & (others != start + jnp.arange(CHUNK)[:, None])
    cosines_CV = jnp.where(valid_CV, cosines_CV, -jnp.inf)
    return cosines_CV.argmax(1), cosines_CV.max(1)


def row_name(vocab: Vocabulary, i: int) -> str:
    """A token in print; special and reserved ones by their names."""
    return show_id(vocab, i) if vocab.tokens[i] else vocab.tokenizer.id_to_token(i) or "-"
