"""Weights from similarities, against plain formulas in float64."""

import numpy as np
import pytest

from zett.methods.similarity import largest, softmax, sparsemax, unit


def plain_sparsemax(z: np.ndarray) -> np.ndarray:
    """One row: of the support's sizes, the largest for which the smallest value in it is still above the threshold."""
    ordered = np.sort(z)[::-1]
    size = max(k for k in range(1, len(z) + 1) if 1 + k * ordered[k - 1] > ordered[:k].sum())
    return np.maximum(z - (ordered[:size].sum() - 1) / size, 0)


@pytest.mark.parametrize("columns", [1, 5, 64, 65, 128, 1000])
@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_sparsemax(columns, scale):
    z = scale * np.random.default_rng(columns).standard_normal((20, columns))
    z[3] = z[3, 0]  # all the same
    found = sparsemax(z.astype(np.float32))
    np.testing.assert_allclose(found, [plain_sparsemax(row) for row in z], atol=1e-5 * max(scale, 1))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-4)


def test_sparsemax_is_entmaxs():
    entmax, torch = (pytest.importorskip(name, exc_type=ImportError) for name in ("entmax", "torch"))
    z = np.random.default_rng(0).uniform(-0.3, 0.9, (10, 3000)).astype(np.float32)
    np.testing.assert_allclose(sparsemax(z), entmax.sparsemax(torch.from_numpy(z)).numpy(), atol=1e-5)


@pytest.mark.parametrize(("columns", "k"), [(7, 10), (100, 3), (640, 10), (1000, 10), (2001, 3), (2001, 40)])
def test_largest(columns, k):
    values = np.random.default_rng(0).standard_normal((30, columns)).astype(np.float32)
    np.testing.assert_array_equal(largest(values, k), np.argsort(-values, axis=1)[:, :k])


def test_unit_and_softmax():
    np.testing.assert_allclose(unit(np.asarray([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(softmax(np.asarray([[1000.0, 1000.0], [0, -np.inf]])), [[0.5, 0.5], [1, 0]])
