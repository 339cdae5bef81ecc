"""The running mean of the parameters over the steps of a training."""

import jax
import numpy as np
import pytest
from runs import Spoilt, exported, interrupted_after, tiny_run

from zett.checkpoint import Checkpoints
from zett.errors import UserError
from zett.mesh import one_device, paths
from zett.optim import make_optimizer
from zett.plan.time import optimizer_cost
from zett.recipes import recipe_class
from zett.train.run import train
from zett.train.step import TrainState, abstract_state, initial_state, make_step

pytestmark = pytest.mark.xdist_group("train")


def steps_of(config, workdir, factors):
    """The state before the first step and after each of those whose losses are multiplied by `factors`, on the host."""
    recipe, optimizer = recipe_class(config.recipe)(config, workdir, one_device()), make_optimizer(config.optim, 12)
    state = initial_state(recipe, optimizer, abstract_state(recipe, optimizer, one_device()))
    states, step = [jax.tree.map(np.array, state)], make_step(Spoilt(recipe), optimizer)
    for number, factor in enumerate(factors):
        state, _ = step(state, recipe.frozen, {"inner": recipe.batch(number), "factor": np.float32(factor)})
        states.append(jax.tree.map(np.array, state))
    return states


def test_it_is_the_mean_of_all_steps_that_were_not_left_out(corpus, tmp_path):
    factors, left_out = [1, 1, np.nan, 1, 1, 1], 3
    states = steps_of(tiny_run(corpus, average=0.3), tmp_path, factors)
    plain = steps_of(tiny_run(corpus), tmp_path, factors)
    for one, other in zip(states, plain, strict=True):  # the training does not notice it
        jax.tree.map(np.testing.assert_array_equal, (one.params, one.opt_state), (other.params, other.opt_state))
    means, updates = jax.tree.leaves(states[0].params), 0
    for number, state in enumerate(states):
        params = jax.tree.leaves(state.params)
        if number not in (0, left_out):
            decay = min(0.3, (1 + updates) / (10 + updates))
            means, updates = [decay * mean + (1 - decay) * new for mean, new in zip(means, params)], updates + 1
        for mean, found in zip(means, jax.tree.leaves(state.average), strict=True):
            np.testing.assert_allclose(found, mean, atol=1e-6, err_msg=str(number))
        assert state.released is state.average
    assert updates == 5 and np.abs(states[-1].average["input"] - states[-1].params["input"]).max() > 1e-3


def test_without_it_a_state_is_what_it_was(corpus, tmp_path):
    """Checkpoints of earlier runs have these parts."""
    config = tiny_run(corpus)
    recipe = recipe_class("lm").to_export(config, tmp_path, one_device())
    state = abstract_state(recipe, make_optimizer(config.optim, 12), one_device())
    assert type(state) is TrainState and state.released is state.params
    assert {path.partition(".")[0] for path in paths(state)} == {"step", "params", "opt_state"}
    longer = tiny_run(corpus, average=0.9)
    recipe = recipe_class("lm").to_export(longer, tmp_path, one_device())
    state = abstract_state(recipe, make_optimizer(config.optim, 12), one_device())
    assert {path.partition(".")[0] for path in paths(state)} == {"step", "params", "opt_state", "average"}


def test_a_run_with_it_resumes_and_releases_it(corpus, tmp_path, monkeypatch):
    config = tiny_run(corpus, steps=6, eval_every=3, checkpoint_every=4, average=0.9)
    evaluation = train(config, tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr("zett.train.loop.make_step", interrupted_after(5))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    assert train(config, tmp_path / "parts") == evaluation
    before, after = exported(tmp_path / "whole"), exported(tmp_path / "parts")
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)

    recipe = recipe_class("lm").to_export(config, tmp_path / "whole", one_device())
    checkpoints = Checkpoints(tmp_path / "whole" / "checkpoints", 2)
    state = checkpoints.restore(abstract_state(recipe, make_optimizer(config.optim, 6), one_device()), 6)
    checkpoints.close()
    assert recipe_class("lm")(config, tmp_path / "whole", one_device()).evaluate(state.average)["score"] == evaluation["score"]
    average, params = (np.asarray(x["input"].astype("bfloat16"), np.float32) for x in (state.average, state.params))
    np.testing.assert_array_equal(before["model.embed_tokens.weight"], average)
    assert (average != params).mean() > 0.1
    with pytest.raises(UserError, match=r"holds a run with config\.train\.average = 0\.9, not 0\.0"):
        train(tiny_run(corpus, steps=6, eval_every=3, checkpoint_every=4), tmp_path / "whole")


def test_a_plan_counts_its_time(corpus):
    optim = tiny_run(corpus).optim
    assert optimizer_cost(optim, 8.0, [(3, 5)], 0.9).bytes - optimizer_cost(optim, 8.0, [(3, 5)]).bytes == 16
