"""Tokens on the fly: rows of a few, merging of a batch, the next of many candidates, each against something in the same run.

    python -m benchmarks.dynamic --output benchmarks/results/dynamic.json
    python -m benchmarks.dynamic --model MODEL --hypernet smollm2 --candidates 0
    python -m benchmarks.dynamic --candidates 1000000 --only candidates

embed: milliseconds for new tokens, and against as many rows in the emission of 4,096. merging: 32 texts of 512 tokens, against
encoding them. candidates: substrings of Python source, by the index against the product over all rows, one hidden state at a
time; recall: of the best one, and of the best ten. MB: of one copy of the output rows; what is held while the index is made, at
most, and what it leaves behind.
"""

import collections
import re

import jax
import numpy as np

from benchmarks.common import SEED, arguments, finish, held_bytes, measured, median_seconds, with_memory
from zett import load_base_model, load_hypernet
from zett.data.sources import open_text
from zett.dynamic.candidates import Candidates
from zett.dynamic.merging import TokenBatch, merge, read_texts
from zett.hypernet.embed import Embedder
from zett.lms.base import BaseModel
from zett.lms.body import Body
from zett.table import EmbeddingTable

TEXT_BYTES = 4_000_000
MERGES = 200
PROBES = (16, 64, 256, 1024)
AT_ONCE = 16384  # tokens whose rows are made


def texts() -> list[str]:
    found, size = [], 0
    for text in open_text("python", split="train", text_column="text"):
        found.append(text)
        size += len(text)
        if size > TEXT_BYTES:
            break
    return found


def substrings(documents: list[str], number: int) -> list[bytes]:
    """The most frequent ones of words, of up to 16 bytes."""
    words = collections.Counter(word for text in documents for word in re.findall(r" ?\S+|\s+", text))
    counts: collections.Counter[bytes] = collections.Counter()
    for word, often in words.items():
        data = word.encode()[:64]
        for i in range(len(data)):
            for j in range(i + 1, min(i + 16, len(data)) + 1):
                counts[data[i:j]] += often
    return [token for token, _ in counts.most_common(number)]


def embedding(embedder: Embedder, repeats: int) -> dict:
    rng = np.random.default_rng(SEED)
    known = [token for token in embedder.base.vocab.tokens if token]

    def new(number: int) -> list[bytes]:
        return [known[a] + known[b] for a, b in rng.integers(len(known), size=(number, 2))]

    many, report = new(4096), {}
    a_row = median_seconds(1, emission=lambda: embedder(many))["emission"] / len(many)
    for number in (1, 8, 64):
        for _ in range(8):  # the shapes that such a batch may have
            embedder(new(number))
        seconds = median_seconds(repeats, embed=lambda n=number: embedder(new(n)))["embed"]
        report[number] = {"milliseconds": 1e3 * seconds, "of_a_row_in_emission": seconds / number / a_row}
    return {"emission_milliseconds_a_row": 1e3 * a_row, **report}


def merging(model: BaseModel, documents: list[str], repeats: int) -> dict:
    some = [text for text in documents if len(text) > 4096][:32]
    batch = read_texts(model.vocab, [text[:4096] for text in some])
    cut = TokenBatch(model.vocab, batch.ids[:, :512], np.minimum(batch.lengths, 512), batch.words[:, :512])
    seconds = median_seconds(
        repeats,
        merging=lambda: merge(cut, MERGES),
        encoding=lambda: [model.vocab.tokenizer.encode(text[:4096], add_special_tokens=False) for text in some],
    )
    merged = merge(cut, MERGES)
    return {
        "seconds": seconds["merging"], "of_encoding": seconds["merging"] / seconds["encoding"], "merges": merged.merges,
        "shorter": merged.reduction,
    }  # fmt: skip


def hidden_states(model: BaseModel, documents: list[str]) -> np.ndarray:
    """`[N, D]`, of documents that are not among those whose substrings are counted: the last ones."""
    body, rows = jax.jit(lambda body, x: body(x)), np.asarray(model.table.input, np.float32)
    found = []
    for text in documents[-64:]:
        ids = model.vocab.tokenizer.encode(text[:2048], add_special_tokens=False).ids[:128]
        if len(ids) == 128:
            found.append(np.asarray(body(Body(model.graphdef, model.params), rows[np.asarray(ids)][None]))[0, 16::12])
    return np.concatenate(found)


def embedded(embedder: Embedder, tokens: list[bytes]) -> EmbeddingTable:
    """Rows of a great many tokens, some at a time."""
    parts = [embedder(tokens[i : i + AT_ONCE]) for i in range(0, len(tokens), AT_ONCE)]
    columns = zip(*((part.input, part.output, part.bias) for part in parts))
    return EmbeddingTable.of(*(None if some[0] is None else np.concatenate(some) for some in columns))


def candidates(model: BaseModel, embedder: Embedder, documents: list[str], number: int) -> dict:
    tokens, h = substrings(documents[:-64], number), hidden_states(model, documents)
    rows, table = measured(lambda: embedded(embedder, tokens))
    whole = Candidates.of(tokens, table, exact=True)
    held = held_bytes()
    build, found = with_memory(lambda: Candidates.of(tokens, table))
    report: dict = {
        "number": len(tokens), "width": whole.output.shape[1], "hidden_states": len(h), "rows": rows,
        "build": build | {"MB_left": (held_bytes() - held) / 1e6}, "MB_of_the_rows": whole.output.nbytes / 1e6,
    }  # fmt: skip
    best = np.concatenate([whole.top(part, 10)[0] for part in np.array_split(h, -(-len(h) // 16))])
    for probes in PROBES:
        ids = found.top(h, 10, probes=probes)[0]
        turn = iter(np.tile(np.arange(len(h)), 99))

        def one(which: Candidates, probes: int = probes, turn=turn) -> None:
            which.top(h[next(turn)][None], 1, probes=probes)

        seconds = median_seconds(30, index=lambda one=one: one(found), exact=lambda one=one: one(whole))
        report[f"probes {probes}"] = {
            "recall_at_1": float((ids[:, 0] == best[:, 0]).mean()),
            "recall_at_10": float(np.mean([np.isin(a, b).mean() for a, b in zip(best, ids)])),
            "milliseconds": 1e3 * seconds["index"], "exact_over_index": seconds["exact"] / seconds["index"],
        }  # fmt: skip
    return report


def main() -> None:
    parser = arguments(__doc__, repeats=15)
    parser.add_argument("--model", default="pico")
    parser.add_argument("--hypernet", default="pico")
    parser.add_argument("--candidates", type=int, default=300_000, help="0: none")
    parser.add_argument("--only", choices=["embed", "merging", "candidates"], help="one of the three")
    args = parser.parse_args()
    model, documents = load_base_model(args.model), texts()
    embedder = Embedder(load_hypernet(args.hypernet), model, kept=0)
    calls = {
        "embed": lambda: embedding(embedder, args.repeats),
        "merging": lambda: merging(model, documents, args.repeats),
        "candidates": lambda: candidates(model, embedder, documents, args.candidates),
    }  # fmt: skip
    if not args.candidates:
        calls.pop("candidates")
    report = {"base": model.name} | {name: call() for name, call in calls.items() if args.only in (None, name)}
    finish(report, args.output)


if __name__ == "__main__":
    main()
