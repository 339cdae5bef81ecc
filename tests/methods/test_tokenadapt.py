"""TokenAdapt: against its formula in float64, with a tiny model as the embedder."""

import numpy as np
import pytest
import tiny

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.body import Body
from zett.methods import make_method
from zett.methods.embedding import embed_texts
from zett.vocab import load_tokenizer


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("embedder") / "model", dtype="float32", seed=4)


def test_embeddings_are_means_of_hidden_states(embedder):
    """Whatever else is in the batch."""
    model = load_base_model(embedder)
    texts = ["def tokenizer", " x", "folder: Path = tmp_path / 'model'", " x"]
    found = embed_texts(model, texts, "texts")
    np.testing.assert_array_equal(found[1], found[3])
    for text, row in zip(texts, found):
        ids = model.vocab.tokenizer.encode(text).ids
        hidden = Body(model.graphdef, model.params)(np.asarray(model.table.input)[None, ids])
        np.testing.assert_allclose(hidden[0].mean(0), row, atol=1e-5)
        np.testing.assert_allclose(embed_texts(model, [text], "text")[0], row, atol=1e-5)
        assert np.linalg.norm(row) > 0.1


@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_rows_are_those_of_the_formula(weight, tmp_path, target_folder, embedder):
    base = load_base_model(tiny.base_folder(tmp_path / "base", dtype="float32"), body=False)
    target, model = load_tokenizer(target_folder), load_base_model(embedder)
    out = make_method("tokenadapt", embedder=str(embedder), weight=weight)(base, target)
    text = {
        side: [t.decode("utf-8", "replace") for t in vocab.tokens] for side, vocab in (("new", target), ("old", base.vocab))
    }
    usable = [i for i, t in enumerate(base.vocab.tokens) if t]
    old = dict(zip(usable, embed_texts(model, [text["old"][i] for i in usable], "old").astype(np.float64)))
    new = [i for i, t in enumerate(target.tokens) if t and t not in base.vocab.id_of]
    assert len(new) > 50
    for i, query in zip(new, embed_texts(model, [text["new"][i] for i in new], "new").astype(np.float64)):
        pieces = next(iter(base.vocab.decompose([target.tokens[i]])))
        first = softmax(np.asarray([cosine(query, old[p]) for p in pieces]))
        shares = np.asarray([len(text["old"][p]) / len(text["new"][i]) for p in pieces])
        local = softmax((first + shares) / 2 / 0.3)
        similar = np.asarray([cosine(query, old[p]) for p in usable])
        best = np.argsort(-similar)[:4]
        if similar[best[2]] - similar[best[3]] < 1e-5:
            continue
        near = softmax(similar[best[:3]] / 0.3)
        for found, rows in [(out.input, base.table.input), (out.output, base.table.output)]:
            rows = np.asarray(rows, np.float64)
            expected = (1 - weight) * local @ rows[pieces] + weight * near @ rows[[usable[b] for b in best[:3]]]
            np.testing.assert_allclose(found[i], expected, atol=1e-4)


def test_embedders_that_cannot_help(base_folder, tmp_path):
    base = load_base_model(base_folder, body=False)
    with pytest.raises(UserError, match=r"method tokenadapt needs a model that embeds texts: tokenadapt:embedder=MODEL"):
        make_method("tokenadapt").precheck("pico")
    with pytest.raises(UserError, match=r"method tokenadapt: embedder: there is no folder .*nowhere"):
        make_method(f"tokenadapt:{tmp_path / 'nowhere'}").check(base)
    with pytest.raises(UserError, match=r"method tokenadapt: weight is 2.0; it has to be at least 0 and at most 1"):
        make_method("tokenadapt:x,weight=2")
