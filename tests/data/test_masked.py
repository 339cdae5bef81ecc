"""What a masked language model reads: texts in their frames, with tokens hidden."""

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk
from encoders import BERT, bases_in, encoder_folder, own_tokenizer

from zett.data.masked import MASK, Frame, embed, frame_of, hide
from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.lms import load_base_model


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return bases_in(tmp_path_factory.mktemp("encoders"))


def test_the_frame_is_what_the_tokenizer_puts_around_a_text(bases):
    assert frame_of(bases["bert"]) == Frame(4, (2,), (3,))
    assert frame_of(bases["xlm-roberta"]) == Frame(4, (0,), (2,))
    base = bases["bert"]
    base.vocab.tokenizer.post_processor = tk.processors.Sequence([])  # then the roles tell
    assert frame_of(base) == Frame(4, (2,), (3,))
    base.vocab.tokenizer.post_processor = own_tokenizer(BERT, lower=True).post_processor


def test_texts_in_their_frame():
    frame = Frame(7, (5,), (6, 8))
    ids, mask = frame.around(np.asarray([[11, 12, 13], [14, 99, 99]]), np.asarray([3, 1]))
    assert ids.tolist() == [[-2, 11, 12, 13, -3, -4], [-2, 14, -3, -4, MASK, MASK]]
    assert mask.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    table, rows = np.arange(20.0)[:, None], frame.rows(np.arange(20.0)[:, None])
    assert embed(jnp.asarray(table), rows, ids)[..., 0].tolist() == [[5, 11, 12, 13, 6, 8], [5, 14, 6, 8, 7, 7]]


def test_an_encoder_without_head_or_mask_token_is_refused(tmp_path):
    folder = encoder_folder(tmp_path / "headless", "bert", head=False)
    with pytest.raises(UserError, match=r"headless is a bidirectional encoder \(bert\) without a masked-language-model head"):
        frame_of(load_base_model(folder))
    with pytest.raises(UserError, match="without a masked-language-model head"):  # before tokenizers are read or trained
        evaluate(folder, windows=["a text"], tokenizer=tmp_path / "there is none")
    folder = encoder_folder(tmp_path / "maskless", "bert")
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("[MASK]", "[GONE]"))
    with pytest.raises(UserError, match=r"tokenizer of .*maskless \(bert\) has no mask token"):
        frame_of(load_base_model(folder))


def test_hidden_tokens():
    ids = np.random.default_rng(0).integers(100, 200, (400, 50))
    lengths = np.r_[np.full(397, 50), 3, 1, 0]

    def hidden(rows):
        rngs = [np.random.default_rng([0, row]) for row in rows]
        return hide(ids[rows], lengths[rows], 0.15, rngs, np.arange(200, 300))

    after, columns, weights = hidden(np.arange(400))
    assert columns.shape == weights.shape == (400, 8)
    assert (weights[:397].sum(1) == 8).all() and weights[397:].sum(1).tolist() == [1, 1, 0]
    # Nothing but what is counted has changed, and nothing twice.
    for row in range(400):
        chosen = columns[row, : int(weights[row].sum())]
        assert len(set(chosen)) == len(chosen) and (chosen < lengths[row]).all()
        assert np.array_equal(np.delete(after[row], chosen), np.delete(ids[row], chosen))
    chosen = np.take_along_axis(after, columns, 1)[:397]
    before = np.take_along_axis(ids, columns, 1)[:397]
    shares = [(chosen == MASK).mean(), (chosen >= 200).mean(), (chosen == before).mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)  # three standard errors are 0.021
    assert sum(shares) == 1 and np.ptp(chosen[chosen >= 200]) > 90
    # Of any rows alone it is the same.
    for a, b in zip(hidden(np.asarray([7, 397])), (after, columns, weights)):
        np.testing.assert_array_equal(a, b[[7, 397]])
