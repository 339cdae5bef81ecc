"""A run compiles its step at most twice, whatever is drawn: batches have two sizes."""

import jax
import numpy as np
import pytest
import tiny

from zett.config import from_dict
from zett.mesh import make_mesh
from zett.optim import make_optimizer
from zett.recipes.hypernet import HypernetRecipe
from zett.train.step import abstract_state, initial_state, make_step

KINDS = {kind: {name: float(name == kind) for name in ("bpe", "unigram", "substring", "wordpiece")} for kind in
         ("bpe", "unigram", "substring", "wordpiece")}  # fmt: skip


def recipe_of(base, corpus, tmp_path, **sampler) -> HypernetRecipe:
    one = {"texts": (str(corpus),) * 2, "one_text": True} if sampler.pop("languages", False) else {}
    config = from_dict(
        {
            "base": str(base),
            "data": {"text": str(corpus), "batch_size": 4, "length": 32},
            "hypernet": {"width": 8, "layers": 1, "heads": 2, "feed_forward": 8, "languages": ("a", "b") if one else ()},
            "sampler": {"min_size": 300, "max_size": 2500, "pool": 2, "inventory": 5000, "rows": 0, **one, **sampler},
            "train": {"eval_windows": 2, "eval_targets": ["bpe-1k"], "dtype": "float32"},
        }
    )
    return HypernetRecipe(config, tmp_path, make_mesh(config.mesh))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("languages", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rows", [0, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_300_draws_have_two_sizes(base, corpus, tmp_path, kind, rows, languages):
    recipe = recipe_of(base, corpus, tmp_path, rows=rows, languages=languages, **KINDS[kind])
    found = [jax.tree.map(np.shape, recipe.batch(step)) for step in range(300)]
    sizes = {str(shapes): shapes for shapes in found}
    assert len(sizes) <= 2
    usual = str(jax.tree.map(np.shape, recipe.batch(0)))
    assert sum(str(shapes) == usual for shapes in found) >= 285  # the other one is a reserve


def test_a_step_that_does_not_fit_has_the_largest_size_and_the_same_loss(base, corpus, tmp_path):
    """Padding changes nothing: the step of a batch is the same in either size, and the program is compiled twice."""
    recipe = recipe_of(base, corpus, tmp_path, **KINDS["bpe"])
    usual, largest = recipe.batch.sizes
    assert usual.packed < largest.packed and usual.sources <= largest.sources
    first = recipe.batch(0)
    recipe.batch.sizes = (largest, largest)
    again = recipe.batch(0)
    assert again["forms"].packed.shape[0] == largest.packed > first["forms"].packed.shape[0]
    optimizer = make_optimizer(recipe.config.optim, 10)
    abstract = abstract_state(recipe, optimizer, recipe.mesh)
    step = make_step(recipe, optimizer)
    values = [step(initial_state(recipe, optimizer, abstract), recipe.frozen, batch)[1] for batch in (first, again, first)]
    np.testing.assert_allclose(values[0]["loss"], values[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(values[0]["grad_norm"], values[1]["grad_norm"], rtol=1e-4)
    assert step._cache_size() == 2
