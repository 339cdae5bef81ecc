"""Surface forms: special tokens are one piece, the same bytes the same token, and features are what they say."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import vocabulary

from zett.vocab import surface_forms
from zett.vocab.compiled.counting import extensions
from zett.vocab.forms import SurfaceForms, token_features, with_distance
from zett.vocab.pairing import pair_special
from zett.vocab.priors import rank_prior
from zett.vocab.train import END_OF_TEXT


def test_special_tokens_in_surface_forms(named):
    """One piece, the partner; and none without a partner."""
    _, target = named
    source = vocabulary("bpe")
    forms = surface_forms(target, source)
    pairs = pair_special(target, source)
    assert pairs[target.roles["eos" if "eos" in target.roles else "sep"]] == source.special[END_OF_TEXT]
    for i in target.special.values():
        assert forms.lengths[i] == (i in pairs) and forms.same[i] == pairs.get(i, -1)
        assert i not in pairs or forms.pieces[i, 0] == pairs[i]


def test_same_bytes_are_the_same_token(named):
    _, target = named
    source = vocabulary("bpe")
    forms = surface_forms(target, source)
    for i, token in enumerate(target.tokens):
        if token:
            assert forms.same[i] == (source.tokens.index(token) if token in source.id_of else -1)


@given(st.lists(st.binary(max_size=5).map(lambda b: bytes(x % 3 for x in b)), max_size=30))
@example([b"", b"", b"a"])
@example([b"\xff", b"\xff\xff", b"\xff"])
@settings(max_examples=200, deadline=None)
def test_extensions(tokens):
    packed = np.frombuffer(b"".join(tokens), np.uint8), np.cumsum([0, *map(len, tokens)])
    longer = [sum(o != t and o.startswith(t) for o in set(tokens)) if t else 0 for t in tokens]
    assert extensions(*packed).tolist() == longer


def test_token_features():
    tokens = [b"", b"a", b"ab", b"abc", b"bc", b"c", b"", b"ab"]
    prior = rank_prior(tokens)
    assert (np.diff(prior[[1, 2, 3, 4, 5, 7]]) < 0).all()
    expected = [
        [(p + 9) / 2, np.log(6) - 8.5, np.log1p(before) - 1, np.log1p(after) - 1, np.log1p(len(t)) - 1.5]
        for t, p, before, after in zip(tokens, prior, [0, 2, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 2, 0, 0])
    ]
    np.testing.assert_allclose(token_features(tokens, prior), expected, atol=1e-6)


def test_distance():
    """Of all tokens with pieces, as often as their prior says; the other features and the forms stay."""
    prior, lengths = np.log([0.5, 0.25, 0.25, 0.9]), np.asarray([1, 2, 4, 0], np.int32)
    features = np.stack([(prior + 9) / 2, *np.arange(16.0).reshape(4, 4)], 1).astype(np.float32)
    forms = SurfaceForms(np.zeros((4, 8), np.int32), lengths, features, np.asarray([7, -1, -1, -1], np.int32))
    far = with_distance(forms)
    np.testing.assert_allclose(far.features[:, 5:], np.tile([2 * (0.5 + 0.5 + 1 - 1.5), 4 * (0.5 - 0.5)], (4, 1)), atol=1e-5)
    np.testing.assert_array_equal(far.features[:, :5], features)
    assert far.features.dtype == np.float32 and far.pieces is forms.pieces and far.same is forms.same
    own = with_distance(surface_forms(vocabulary("bpe"), vocabulary("bpe")))
    np.testing.assert_allclose(own.features[:, 5:], np.tile([-1, 2], (len(own), 1)), atol=1e-5)
