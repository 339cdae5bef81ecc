"""Reading on with a cache gives what reading the whole text at once does, in every causal family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lms import parity

from zett.lms import load_base_model
from zett.lms.body import Body
from zett.lms.cache import Cache

CAUSAL = [*parity.make.DECODERS, *parity.variants("gpt2", "gpt_neox", "starcoder2")]
run = jax.jit(lambda body, x, cache=None: body(x, cache=cache))


def read(variant, folder):
    """Body, rows and logits of two texts of 16 tokens, or of as many as are read in one way."""
    base = load_base_model(parity.base_folder(variant, folder))
    length = min(parity.make.LENGTH, base.config.room, *base.config.restarts)
    ids = np.random.default_rng(0).integers(5, parity.make.VOCAB, (2, length))
    body, x = Body(base.graphdef, base.params), base.table.embed(ids)
    return base, body, x, np.asarray(base.table.unembed(run(body, x), base.config.logit_softcap))


def check(logits, expected):
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("variant", parity.by_family(CAUSAL))
def test_logits_with_a_cache_are_those_of_the_whole_text(variant, tmp_path):
    base, body, x, expected = read(variant, tmp_path)
    cache, parts = Cache.empty(base.config, 20, batch=2), []
    for first in range(0, x.shape[1], 2):
        h, cache = run(body, x[:, first : first + 2], cache)
        parts.append(h)
    assert cache.used.tolist() == [x.shape[1]] * 2 and cache.keys.shape[0] == base.config.num_layers
    logits = base.table.unembed(jnp.concatenate(parts, 1), base.config.logit_softcap)
    check(logits, expected)


@pytest.mark.parametrize("variant", ["gemma2-tied", "gpt2-plain"])
def test_texts_of_several_lengths_and_tokens_taken_back(variant, tmp_path):
    base, body, x, expected = read(variant, tmp_path)
    h, cache = run(body, x[:, :8], Cache.empty(base.config, 16, batch=2))
    # Of the first text, five of the eight tokens are taken back, of the second none.
    used = np.asarray([3, 8], np.int32)
    for step in range(4):
        cache = dataclasses.replace(cache, used=used + step)
        h, cache = run(body, x[np.arange(2), used + step][:, None], cache)
        logits = base.table.unembed(h, base.config.logit_softcap)[:, 0]
        check(logits, expected[np.arange(2), used + step])


def test_what_has_no_cache_is_refused(tmp_path):
    base = load_base_model(parity.base_folder("llama-gqa", tmp_path))
    body, x, cache = Body(base.graphdef, base.params), np.zeros((1, 4, 16), np.float32), Cache.empty(base.config, 8)
    for option in ({"mask_BL": np.ones((1, 4), bool)}, {"segments_BL": np.zeros((1, 4), int)}):
        with pytest.raises(ValueError, match="neither masked nor packed"):
            body(x, cache=cache, **option)
