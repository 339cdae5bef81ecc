"""SentencePiece's own file beside tokenizer.json: it is trimmed, too, or left out."""

import io
import json

import numpy as np
import pytest
from surgery.shapes import LINES

from zett.surgery.edit import growing, trimming
from zett.surgery.pieces import edited_pieces


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A SentencePiece BPE, its pieces' ids, and what reads such a file from its bytes."""
    sentencepiece = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, vocab_size=600, model_type="bpe", byte_fallback=True,
        character_coverage=0.99, minloglevel=2, num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    file = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    file.write_bytes(made.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    vocab = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    return file, model, vocab, lambda content: sentencepiece.SentencePieceProcessor(model_proto=content)


def test_pieces_that_stay(trained):
    file, model, vocab, read = trained
    rng = np.random.default_rng(0)
    single = [i for text, i in vocab.items() if i < 259 or len(text) == 1]
    kept = sorted({*single, *rng.choice(len(vocab), len(vocab) // 2, replace=False).tolist()})
    edit = trimming(kept, len(vocab))
    content = edited_pieces(file, vocab, edit)
    small = read(content)
    assert [small.id_to_piece(i) for i in range(small.get_piece_size())] == [model.id_to_piece(i) for i in kept]
    assert [small.get_score(i) for i in range(len(kept))] == [model.get_score(i) for i in kept]
    assert (small.unk_id(), small.bos_id(), small.eos_id()) == (0, 1, 2) and small.decode(small.encode("a  bc")) == "a bc"
    assert edited_pieces(file, vocab, trimming(range(len(vocab)), len(vocab))) == file.read_bytes()


def test_what_cannot_follow(trained, tmp_path):
    file, _, vocab, _ = trained
    whole = trimming(range(len(vocab)), len(vocab))
    assert edited_pieces(file, {text: i + 1 for text, i in vocab.items()}, whole) is None  # numbered otherwise
    assert edited_pieces(file, vocab, trimming([0, *range(2, len(vocab))], len(vocab))) is None  # the end moves
    assert edited_pieces(file, vocab, growing(["new"], len(vocab), len(vocab))) is None
    for content in (b"", b"\xff" * 9, json.dumps(vocab).encode(), file.read_bytes()[:-100]):
        (tmp_path / "other.model").write_bytes(content)
        assert edited_pieces(tmp_path / "other.model", vocab, whole) is None
    assert edited_pieces(tmp_path / "absent.model", vocab, whole) is None
