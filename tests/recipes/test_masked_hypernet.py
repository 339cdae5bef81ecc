"""Masked language models: what they read, what they are measured by, and the training of hypernetworks for them."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk
from flax import nnx
from safetensors.numpy import save_file
from tiny import TEXT, tokenizer_folder
from zett.evaluate.masked import encode_masked, masked_nats
from zett.tasks.hypernet import HypernetTask

from zett.config import Config, from_dict
from zett.data.masked import MASK, Frame, embed, frame_of, hide
from zett.errors import UserError
from zett.evaluate import evaluate, report
from zett.evaluate.tasks.masked_bits_per_byte import hidden_words, token_spans
from zett.hypernet.release import load_hypernet
from zett.lms import load_base_model, weights
from zett.lms.family import family_of
from zett.train.run import train
from zett.transfer import transfer
from zett.vocab import surface_forms
from zett.vocab.sampling.packed import PackedTokens

# A tiny encoder of each kind, with its special tokens as the published ones have them: in another order than the mask's.
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = {
    "bert": (BERT, {"max_position_embeddings": 64, "pad_token_id": 0}),
    "xlm-roberta": (ROBERTA, {"max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1}),
    "modernbert": (BERT, {"max_position_embeddings": 64, "pad_token_id": 0, "local_attention": 12}),
}


def own_tokenizer(special: list[str], *, lower: bool = False):
    """At most 400 entries, and special tokens around a text: byte-level BPE, or a lower-casing WordPiece."""
    if lower:
        tokenizer = tk.Tokenizer(tk.models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = tk.normalizers.Lowercase()
        tokenizer.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
        trainer = tk.trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        tokenizer = tk.Tokenizer(tk.models.BPE())
        tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
        trainer = tk.trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    before, after = (special[2], special[3]) if special is BERT else (special[0], special[2])
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single=f"{before} $A {after}", special_tokens=[(t, tokenizer.token_to_id(t)) for t in (before, after)]
    )
    return tokenizer


def encoder_folder(folder: Path, kind: str, *, head: bool = True, lower: bool | None = None, **fields) -> Path:
    """A random masked language model of `kind`; returns `folder`."""
    special, own = KINDS[kind]
    folder.mkdir(parents=True)
    tokenizer = own_tokenizer(special, lower=kind == "bert" if lower is None else lower)
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    names = {"xlm-roberta": "XLMRoberta", "bert": "Bert", "modernbert": "ModernBert"}
    ids = dict.fromkeys(["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"]) if kind == "modernbert" else {}
    config = (
        SHAPE | own | ids | {"model_type": kind, "vocab_size": size, "architectures": [names[kind] + "ForMaskedLM"]} | fields
    )
    (folder / "config.json").write_text(json.dumps(config))
    family = family_of({"model_type": kind})
    ours = family.Config.from_hf(config)
    shapes = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: family.Body(ours, rngs=nnx.Rngs(0))))[1])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.25 * rng.standard_normal(x.shape), shapes)
    tensors = weights.body_tensors(params, family, ours, np.float32)
    tied = config.get("tie_word_embeddings", True)
    rows = [family.input_rows] + ([] if tied else [family.output_rows])
    tensors |= {name: 0.5 * rng.standard_normal((size, 16)).astype(np.float32) for name in rows}
    bias = rng.standard_normal(size).astype(np.float32)
    tensors |= {name: bias.copy() for name in (family.bias, *([] if tied else [f"{family.output_rows[:-7]}.bias"]))}
    if not config.get("decoder_bias", True):
        del tensors[family.bias]
    if not head:
        tensors = {name: x for name, x in tensors.items() if name.startswith(family.prefix)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A `BaseModel` of each kind."""
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: load_base_model(encoder_folder(folder / kind, kind)) for kind in KINDS}


# ----------------------------------------------------------------------------------------------------- frames and masks


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
    with pytest.raises(UserError, match="without a masked-language-model head"):
        evaluate(folder, windows=["a text"])
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


# ------------------------------------------------------------------------------------------------------------- the measure


def test_hidden_words_are_words():
    def words(text):
        return [text[a:b] for a, b in hidden_words(text, np.random.default_rng(0))]

    text = "Naïve हिन्दी word_one 日本語です, 'a' " * 40
    assert len(words(text)) == round(0.15 * len(words_of(text)))
    assert set(words(text)) == {"Naïve", "हिन्दी", "word_one", "日本", "語で", "す", ",", "'", "a"}
    assert words("one") == ["one"] and words(" \n") == []


def words_of(text):
    from zett.evaluate.tasks.masked_bits_per_byte import _WORD

    return _WORD.findall(text)


def test_the_same_words_are_hidden_from_every_tokenizer(bases):
    windows = [line * 3 for line in TEXT if line.strip()]
    tokenizers = [base.vocab.tokenizer for base in bases.values()]
    unigram = tk.Tokenizer(tk.models.Unigram([("▁", -3.0), *((chr(c), -4.0) for c in range(33, 123)), ("▁the", -2.0)], 0))
    unigram.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    hidden_bytes = set()
    for tokenizer in [*tokenizers, unigram]:
        encoded = encode_masked(windows, tokenizer)
        hidden_bytes.add(encoded.scored_bytes)
        assert encoded.total_bytes == sum(len(w.encode()) for w in windows)
        for row, text in enumerate(windows):
            spans = hidden_words(text, np.random.default_rng([0, row]))
            for i, (a, b) in enumerate(tokenizer.encode(text, add_special_tokens=False).offsets):
                touches = any(set(range(a, b)) & set(range(*span)) for span in spans)
                assert encoded.hidden[row, i] == touches
    assert len(hidden_bytes) == 1
    share = hidden_bytes.pop() / sum(len(w.strip().encode()) for w in windows)
    assert 0.1 < share < 0.2
    assert encode_masked(windows, tokenizers[0], seed=1).scored_bytes != encode_masked(windows, tokenizers[0]).scored_bytes


def test_bytes_of_unknown_characters_have_the_characters_places():
    entries = [("<unk>", 0.0), *((f"<0x{b:02X}>", -9.0) for b in range(256)), ("a", -1.0)]
    tokenizer = tk.Tokenizer(tk.models.Unigram(entries, 0, byte_fallback=True))
    spans = token_spans("añ日a", tokenizer)
    assert [tuple(span) for span in spans] == [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3), (3, 4)]


def torch_nats(folder, ids, labels) -> float:
    """What Transformers' masked-language-model loss says of texts `[B][W]`, summed; label -100 does not count."""
    import torch
    import transformers

    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for text, label in zip(ids, labels):
        with torch.no_grad():
            loss = model(torch.tensor([text]), labels=torch.tensor([label])).loss
        total += float(loss) * sum(x != -100 for x in label)
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_nats_are_those_of_transformers(kind, bases):
    pytest.importorskip("torch")
    base = bases[kind]
    windows = [line for line in TEXT if 20 < len(line) < 60][:5]
    encoded, frame = encode_masked(windows, base.vocab.tokenizer), frame_of(base)
    nats = masked_nats(base, frame, base.params, base.table.pad(512), encoded, batch_size=2)
    texts, labels = [], []
    for window, hidden in zip(windows, encoded.hidden):
        ids = base.vocab.tokenizer.encode(window).ids  # with what the tokenizer puts around it
        masked = np.r_[False, hidden[: len(ids) - 2], False]
        texts.append(np.where(masked, frame.mask, ids).tolist())
        labels.append(np.where(masked, ids, -100).tolist())
    np.testing.assert_allclose(nats.sum(), torch_nats(base.folder, texts, labels), rtol=1e-5)


def test_evaluation(bases, tmp_path):
    base = bases["xlm-roberta"]
    windows = [line for line in TEXT if 20 < len(line) < 60]
    result = evaluate(base, {"own": base.vocab, "other": bases["bert"].vocab}, methods=["fvt"], windows=windows, progress=False)
    own, other = result.targets
    assert own.scores["fvt"].ratio == 1 and own.relative_length == 1 and other.scores["fvt"].ratio != 1
    hidden = encode_masked(windows, base.vocab.tokenizer)
    nats = masked_nats(base, frame_of(base), base.params, base.table, hidden)
    np.testing.assert_allclose(result.original["bits_per_byte"], nats.sum() / np.log(2) / hidden.hidden_bytes, rtol=1e-6)
    assert "masked bits per byte with its own tokenizer" in report.table(result)
    assert report.load(report.save(result, tmp_path)[0]).targets[1].scores == other.scores
    with pytest.raises(UserError, match=r"takes \d+ tokens of this tokenizer, and .* has positions for 62; .* \(--window\)"):
        evaluate(base, {"own": base.vocab}, windows=["a text " * 40], progress=False)


# ---------------------------------------------------------------------------------------------------------------- training

PAPER = {"encoder": "roberta", "norm": "post", "rescale": "fitted", "residual": "none", "features": False}
LANGUAGES = {"languages": ("de", "fr")}


def settings_for(base: Path, corpus: Path, *, hypernet=(), **sections) -> Config:
    values = {
        "base": str(base),
        "data": {"text": str(corpus), "batch_size": 4, "length": 32},
        "hypernet": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "max_pieces": 4, "bias": True, **dict(hypernet)},
        "sampler": {
            "max_size": 420, "sizes": "fixed", "bpe": 1.0, "unigram": 0.0, "substring": 0.0, "pool": 1, "pool_bytes": 20_000,
            "min_size": 320, "rows": 0,
        },
        "optim": {"learning_rate": 1e-2, "warmup_steps": 1},
        "train": {
            "steps": 12, "log_every": 1, "eval_every": 6, "checkpoint_every": 6, "eval_windows": 4, "dtype": "float32",
        },
    }  # fmt: skip
    for section, fields in sections.items():
        values[section] |= fields
    return from_dict(values)


class OwnTokenizer:
    """In place of a `Sampler`: draws the base model's own tokenizer, whose table a fresh hypernetwork predicts as it is."""

    def __init__(self, base, max_pieces: int):
        self._base = base
        forms = surface_forms(base.vocab, base.vocab, max_pieces)
        self._draw = types.SimpleNamespace(
            forms=forms, tokens=PackedTokens.of(base.vocab.tokens), text_number=None, encode=self._encode
        )

    def draw(self, step: int):
        return self._draw

    def _encode(self, texts, limit):
        ids = [self._base.vocab.tokenizer.encode(text, add_special_tokens=False).ids[:limit] for text in texts]
        return np.asarray([row + [0] * (limit - len(row)) for row in ids]), np.asarray([len(row) for row in ids])


def own_task(base: Path, corpus: Path, mesh=None) -> HypernetTask:
    """A task that draws the base's own tokenizer; on a mesh, its batches go through in two parts."""
    config = settings_for(base, corpus, data={"batch_size": 8}, train={"microbatches": 1 if mesh is None else 2})
    task = HypernetTask(config, Path("."), mesh)
    task.sampler = OwnTokenizer(task.base, 4)
    return task


@pytest.fixture(scope="module")
def first_step(bases, corpus):
    """(a task that draws the base's own tokenizer, a batch, its metrics and gradient with fresh parameters)."""
    task = own_task(bases["xlm-roberta"].folder, corpus)
    batch = task.batch(3)
    (_, metrics), gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(task.init(), task.frozen, batch)
    return task, batch, metrics, gradient


def check_first_loss(task: HypernetTask, batch: dict, metrics: dict) -> None:
    """The loss is Transformers' on the texts of the batch, taken out of their frames."""
    assert batch["inputs"].shape == (8, 32) and batch["targets"].shape == (8, 5)  # 15 % of 30
    frame = frame_of(task.base)
    own = np.asarray([frame.mask, *frame.before, *frame.after])
    texts, labels = [], []
    for row in range(8):
        used, inputs = batch["mask"][row], batch["inputs"][row]
        ids = np.where(inputs < 0, own[np.maximum(-1 - inputs, 0)], inputs)
        label = np.full(32, -100)
        label[batch["columns"][row][batch["weights"][row] > 0]] = batch["targets"][row][batch["weights"][row] > 0]
        assert ids[used][0] == own[1] and ids[used][-1] == own[2]
        texts.append(ids[used].tolist())
        labels.append(label[used].tolist())
    nats = torch_nats(task.base.folder, texts, labels)
    np.testing.assert_allclose(metrics["lm"], nats / batch["weights"].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["bits_per_byte"], nats / np.log(2) / batch["bytes"].sum(), rtol=1e-5)


def test_the_first_loss_is_that_of_transformers(first_step):
    pytest.importorskip("torch")
    task, batch, metrics, gradient = first_step
    check_first_loss(task, batch, metrics)
    assert np.abs(gradient["bias"]["kernel"]).max() > 0


def test_the_first_loss_with_output_rows_of_their_own(corpus, tmp_path):
    pytest.importorskip("torch")
    task = own_task(encoder_folder(tmp_path / "base", "bert", lower=False, tie_word_embeddings=False), corpus)
    batch = task.batch(3)
    check_first_loss(task, batch, jax.jit(task.loss)(task.init(), task.frozen, batch)[1])


def test_a_batch_is_a_function_of_its_rows(bases, corpus, tmp_path):
    config = settings_for(bases["xlm-roberta"].folder, corpus)
    task = HypernetTask(config, tmp_path)
    whole, parts = task.batch(5), [task.batch(5, np.asarray(rows)) for rows in ([0, 1], [2, 3])]
    for name in ("inputs", "mask", "columns", "targets", "weights", "bytes"):
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))
    assert (whole["inputs"] != task.batch(6)["inputs"]).any()
    # With fewer rows, ids count within them, and what is drawn at random is among them.
    task.config = dataclasses.replace(config, sampler=dataclasses.replace(config.sampler, rows=64))
    fewer = task.batch(5)
    np.testing.assert_array_equal(fewer["columns"], whole["columns"])
    assert fewer["inputs"].max() < fewer["num_valid"]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("xlm-roberta", {"data": {"length": 65}}, r"config\.data\.length is 65; .* above 2, .* at most 64, the positions"),
        ("xlm-roberta", {"data": {"length": 2}}, r"config\.data\.length is 2; .* above 2"),
        ("modernbert", {}, r"config\.hypernet\.bias is True, but .* has no output bias"),
    ],
)
def test_what_cannot_be_trained(kind, settings, message, corpus, tmp_path):
    fields = {"decoder_bias": False} if kind == "modernbert" else {}
    folder = encoder_folder(tmp_path / "base", kind, **fields)
    with pytest.raises(UserError, match=message):
        HypernetTask(settings_for(folder, corpus, **settings), tmp_path)
    with pytest.raises(UserError, match=r"config\.loss\.mask_share is 1\.0; it has to be greater than 0 and less than 1"):
        from_dict({"loss": {"mask_share": 1.0}})


def logged(workdir: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def check_resumed(config: Config, folder: Path, evaluation: dict) -> None:
    """Stopped between checkpoints and started again, a run ends with the bits of the one in `folder / "whole"`."""
    import zett.train

    make_step = zett.train.make_step

    def stopping(task, optimizer):
        step_fn = make_step(task, optimizer)

        def step(state, *rest):
            if int(state.step) == 7:
                raise InterruptedError
            return step_fn(state, *rest)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zett.train, "make_step", stopping)
        with pytest.raises(InterruptedError):
            train(config, folder / "parts")
    assert train(config, folder / "parts") == evaluation
    files = [(folder / run / "export" / "model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("kind", "hypernet"), [pytest.param("xlm-roberta", LANGUAGES, marks=pytest.mark.slow), ("bert", PAPER)]
)
def test_a_tiny_run(kind, hypernet, bases, corpus, tmp_path):
    """It learns, goes on after an interruption to the same bits, and its models are Transformers' masked language models."""
    target = tokenizer_folder(tmp_path / "target", "unigram", 330)
    one = {"texts": (str(corpus), str(corpus)), "one_text": True} if "languages" in hypernet else {}
    config = settings_for(bases[kind].folder, corpus, hypernet=hypernet, sampler=one, train={"eval_targets": (str(target),)})
    evaluation = train(config, tmp_path / "whole")
    losses = logged(tmp_path / "whole", "lm")
    assert len(losses) == 12 and np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    if "languages" in hypernet:  # once is enough
        check_resumed(config, tmp_path, evaluation)
    trained = load_hypernet(tmp_path / "whole" / "export")
    assert np.abs(trained.params["bias"]["kernel"]).max() > 0
    language = "fr" if "languages" in hypernet else None
    output = transfer(bases[kind].folder, target, tmp_path / "out", hypernet=tmp_path / "whole" / "export", language=language)
    new = load_base_model(output)
    fvt = load_base_model(transfer(bases[kind].folder, target, tmp_path / "fvt", method="fvt"))
    assert np.abs(new.table.bias - fvt.table.bias).max() > 1e-3
    pytest.importorskip("torch")
    import torch
    import transformers

    ids = np.random.default_rng(0).integers(5, len(new.vocab), (1, 20))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(output, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    h = nnx.merge(new.graphdef, new.params)(new.table.embed(jnp.asarray(ids)))
    np.testing.assert_allclose(new.table.unembed(h), expected, rtol=1e-4, atol=1e-4)


ON_A_MESH = """
import json, pathlib, sys
import jax, numpy as np
from jax.sharding import AxisType
sys.path.insert(0, "tests")
from test_masked import own_task
from zett.mesh import AXES, global_batch
mesh = jax.make_mesh((2, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)
task = own_task(*map(pathlib.Path, sys.argv[1:]), mesh=mesh)
batch = global_batch(mesh, task.batch(3), task.batch_specs, 8)
(_, metrics), gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(task.init(), task.frozen, batch)
squares = [float(np.square(np.asarray(x)).sum()) for x in jax.tree.leaves(gradient)]
print(json.dumps([float(metrics["lm"]), float(metrics["lexical"]), *squares]))
"""


@pytest.mark.slow
def test_on_a_mesh(first_step, corpus):
    """Eight devices that share the batch, in two parts one after the other: the loss and gradients of one device."""
    task, _, metrics, gradient = first_step
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, str(task.base.folder), str(corpus)],
        cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    squares = [np.square(x).sum() for x in jax.tree.leaves(gradient)]
    np.testing.assert_allclose(json.loads(done.stdout), [metrics["lm"], metrics["lexical"], *squares], rtol=1e-3, atol=1e-9)
