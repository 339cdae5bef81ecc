"""The lexical loss holds the rows of tokens that the source has."""

import numpy as np
import pytest
from objectives.settings import body_of, setting_of, texts_of

from zett.hypernet.scaling import source_rows
from zett.objectives.lexical import Lexical
from zett.table import EmbeddingTable


@pytest.mark.parametrize(("tied", "untie"), [(False, False), (True, False), (True, True)])
def test_distance_of_shared_rows(base, tied, untie):
    table = EmbeddingTable.of(base.table.input) if tied else base.table
    source, size, d = np.asarray(source_rows(table)), len(base.vocab), table.input.shape[1]
    objective = Lexical(setting_of(base, source_rows=source))
    same = np.random.default_rng(0).integers(-1, size, 400).astype(np.int32)
    same[::3] = -1
    valid = 350
    batch = objective.batch(texts_of(base, same=same), [])
    np.testing.assert_array_equal(batch["same"], same)
    assert objective.specs.keys() == batch.keys() and objective.frozen()["rows"] is source
    source = np.tile(source, 1 + untie)  # both kinds of untied rows are compared with those that there are
    rows = np.random.default_rng(1).normal(size=(400, source.shape[1])).astype(np.float32)
    one = tied and not untie

    def loss(rows):
        table = EmbeddingTable(rows[:, :d], None if one else rows[:, d:], None, np.int32(valid))
        value, metrics = objective(table, body_of(base), objective.frozen(), batch)
        assert float(metrics["lexical"]) == float(value)
        return float(value)

    shared = (same >= 0) & (np.arange(400) < valid)
    sides = [slice(d)] if one else [slice(d), slice(d, None)]
    expected = np.mean([
        np.linalg.norm((rows - source[same])[shared, side], axis=-1).mean() / np.linalg.norm(source[:, side], axis=-1).mean()
        for side in sides
    ])  # fmt: skip
    assert loss(rows) == pytest.approx(expected, rel=1e-4)
    assert loss(np.where(same[:, None] >= 0, source[same], rows)) < 1e-4
    rows[valid:] = 1e3  # these are padding
    assert loss(rows) == pytest.approx(expected, rel=1e-4)
