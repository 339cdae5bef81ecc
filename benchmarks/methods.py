"""Training-free methods in time and memory, against straightforward forms of the same formulas in the same run.

    python -m benchmarks.methods --output benchmarks/results/methods.json
    python -m benchmarks.methods --tokens 256 --shared 4000 --columns 256     # a quick try
    python -m benchmarks.methods --full --output benchmarks/results/omp_full.json   # the pursuit of 10,000 tokens, whole

Random tables: --tokens new tokens, --shared shared ones, rows of --columns numbers, word vectors of 300. The references, in
NumPy and float32: matching pursuit in batches of 512 as the paper's authors have it, a basis made anew in four passes a step;
FOCUS with sparsemax by sorting, token by token; WECHSEL's neighbours token by token. Times are of processors, all of them added
up, which hardly grows where others use the machine; memory is that of the methods, beside the inputs. The reference of the
pursuit takes --reference tokens only, and its time is scaled up: in batches, it grows with their number. --full: what takes the
pursuit five minutes of processors, counted and not scaled up, held against the reference on 64 tokens; nothing else.
"""

import functools
import os

import jax
import numpy as np

from benchmarks.common import SEED, arguments, finish, measured, with_memory
from zett.methods.omp import CHUNK, pursue
from zett.methods.similarity import sparsemax, unit
from zett.methods.wechsel import nearest_mixture

VECTOR = 300
BATCH = 512  # of the authors' pursuit


def omp(targets: np.ndarray, atoms: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As the method does it: chunk by chunk."""
    there, parts = jax.numpy.asarray(atoms), []
    for start in range(0, len(targets), CHUNK):
        some = np.zeros((CHUNK, targets.shape[1]), np.float32)
        some[: len(targets) - start] = targets[start : start + CHUNK]
        parts.append([np.asarray(x)[: len(targets) - start] for x in pursue(some, there, k)])
    ids, weights = (np.concatenate(side) for side in zip(*parts))
    return ids, weights


def omp_reference(targets: np.ndarray, atoms: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [_pursued(targets[start : start + BATCH], atoms, k) for start in range(0, len(targets), BATCH)]
    ids, weights = (np.concatenate(side) for side in zip(*parts))
    return ids, weights


def _pursued(x: np.ndarray, atoms: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    lines = np.arange(len(x))
    q, r = np.zeros((len(x), x.shape[1], k), np.float32), np.zeros((len(x), k, k), np.float32)
    ids, taken, left = np.zeros((len(x), k), int), np.zeros((len(x), len(atoms)), bool), x
    for t in range(k):
        products = np.abs(left @ atoms.T)
        products[taken] = -np.inf
        ids[:, t] = products.argmax(1)
        taken[lines, ids[:, t]] = True
        atom, basis = atoms[ids[:, t]], q[:, :, :t]
        r[:, :t, t] = (basis.transpose(0, 2, 1) @ atom[:, :, None])[:, :, 0]
        rest = atom - (basis @ r[:, :t, t, None])[:, :, 0]
        r[:, t, t] = np.linalg.norm(rest, axis=1)
        q[:, :, t] = rest / r[:, t, t, None]
        basis = q[:, :, : t + 1]
        left = x - (basis @ (basis.transpose(0, 2, 1) @ x[:, :, None]))[:, :, 0]
    return ids, np.linalg.solve(r, q.transpose(0, 2, 1) @ x[:, :, None])[:, :, 0]


def focus(new: np.ndarray, shared: np.ndarray) -> np.ndarray:
    anchors = unit(shared)
    parts = [sparsemax(unit(new[start : start + 512]) @ anchors.T) for start in range(0, len(new), 512)]
    return np.asarray([np.count_nonzero(part, axis=1).mean() for part in parts])


def focus_reference(new: np.ndarray, shared: np.ndarray) -> np.ndarray:
    anchors, sizes = unit(shared), []
    for row in unit(new):
        z = anchors @ row
        ordered = np.sort(z)[::-1]
        totals, counts = np.cumsum(ordered), np.arange(1, len(z) + 1)
        size = int((1 + counts * ordered > totals).sum())
        sizes.append(np.count_nonzero(np.maximum(z - (totals[size - 1] - 1) / size, 0)))
    return np.asarray(sizes)


def wechsel(new: np.ndarray, shared: np.ndarray) -> np.ndarray:
    weigh = nearest_mixture(unit(shared), unit(new), 10, 0.1)
    return np.concatenate([weigh(np.arange(start, min(start + 512, len(new)))).weights for start in range(0, len(new), 512)])


def wechsel_reference(new: np.ndarray, shared: np.ndarray) -> np.ndarray:
    anchors, out = unit(shared), []
    for row in unit(new):
        similar = anchors @ row
        best = np.argpartition(similar, -10)[-10:]
        weights = np.exp(similar[best[np.argsort(-similar[best])]] / 0.1)
        out.append(weights / weights.sum())
    return np.asarray(out)


FULL = {"tokens": 10_000, "shared": 20_000, "columns": 1024, "k": 64, "reference": 64}


def compare_omp(args) -> dict:
    rng = np.random.default_rng(SEED)
    common = rng.standard_normal(args.columns, np.float32)  # rows of real tables have much in common
    new, atoms = (rng.standard_normal((n, args.columns), np.float32) + common for n in (args.tokens, args.shared))
    pursue.lower(new[:1].repeat(CHUNK, 0), atoms, args.k).compile()
    ours, found = with_memory(functools.partial(omp, new, atoms, args.k))
    sample = np.linspace(0, args.tokens - 1, args.reference).astype(int)
    theirs, expected = measured(functools.partial(omp_reference, new[sample], atoms, args.k))
    theirs = {name: x * args.tokens / args.reference for name, x in theirs.items()}
    same = (found[0][sample] == expected[0]).all(1)
    error = np.abs(found[1][sample] - expected[1])[same].max()
    compared = {"same_picks": float(same.mean()), "largest_difference_of_coefficients": float(error)}
    return {"zett": ours, "reference": theirs, "ratio": theirs["cpu_seconds"] / ours["cpu_seconds"]} | compared


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--shared", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--reference", type=int, default=512)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    if args.full:
        parser.set_defaults(**FULL)
        args = parser.parse_args()
    report: dict = {"sizes": vars(args) | {"output": None}, "cores": os.cpu_count(), "omp": compare_omp(args)}
    if args.full:
        finish(report, args.output)
        return
    rng = np.random.default_rng(SEED)
    middle = rng.standard_normal(VECTOR, np.float32)
    words = [rng.standard_normal((n, VECTOR), np.float32) + middle for n in (args.tokens, args.shared)]
    for name, call, reference in [("focus", focus, focus_reference), ("wechsel", wechsel, wechsel_reference)]:
        ours, found = with_memory(functools.partial(call, *words))
        theirs, expected = measured(functools.partial(reference, *words))
        np.testing.assert_allclose(np.mean(found), np.mean(expected), rtol=0.02)
        report[name] = {"zett": ours, "reference": theirs, "ratio": theirs["cpu_seconds"] / ours["cpu_seconds"]}
    finish(report, args.output)


if __name__ == "__main__":
    main()
