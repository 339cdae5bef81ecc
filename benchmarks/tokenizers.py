"""What the vocabulary engine costs, each part against a straightforward reference on the tokenizers library in the same run.

    python -m benchmarks.tokenizers --tokenizers ../shared/data/tokenizers --output benchmarks/results/tokenizers.json

Every section is a function that returns numbers; results are compared before anything is timed. Times are medians in seconds,
ratios are reference over ours; memory is the peak beyond what the process has before, in MB.
"""

import concurrent.futures
import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import HAS_PEAK, SEED, arguments, finish, forget_peak, held_bytes, median_seconds, peak_bytes
from zett.config import SamplerConfig
from zett.data.sources import open_text
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.bytes import SPACE_MARK, to_alphabet
from zett.vocab.regexes import WORD_REGEX
from zett.vocab.sampling.counts import REQUIRED, count_candidates
from zett.vocab.sampling.sampler import KINDS, Sampler

PIECES = 7
LARGE = 256_000


def peak_megabytes(call: Callable[[], object]) -> float | None:
    """What a call takes in a child process at its peak; None where the system does not tell."""

    def child(pipe) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # or else memory that the parent had freed would be used again, and not be seen
        forget_peak()
        before = held_bytes()
        call()
        pipe.send((peak_bytes() - before) / 2**20)

    if not HAS_PEAK:
        return None
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(sender,))
    process.start()
    process.join()
    return receiver.recv()


# ------------------------------------------------------------------------------------------------------- decomposition


def reference_forms(source: Vocabulary, tokens: Sequence[bytes]) -> np.ndarray:
    """`[V, S]` pieces by one call of the tokenizer's model for each token."""
    pieces = np.zeros((len(tokens), PIECES), np.int32)
    for row, token in enumerate(tokens):
        text = to_alphabet(token) if source.format.byte_level else token.decode("utf-8", "replace").replace(" ", SPACE_MARK)
        ids = [piece.id for piece in source.tokenizer.model.tokenize(text)][:PIECES] if text else []
        pieces[row, : len(ids)] = ids
    return pieces


def large_vocabulary(folders: Sequence[Path]) -> list[bytes]:
    """256,000 tokens: those of all tokenizers at hand, and pairs of them where there are not enough."""
    tokens = sorted({token for folder in folders for token in load_tokenizer(folder).tokens})
    rng = np.random.default_rng(SEED)
    while len(tokens) < LARGE:
        pairs = rng.integers(0, len(tokens), (LARGE - len(tokens), 2))
        tokens = list(dict.fromkeys([*tokens, *(tokens[a] + tokens[b] for a, b in pairs)]))
    return [tokens[i] for i in rng.permutation(len(tokens))[:LARGE]]


def decomposition(folders: Sequence[Path], repeats: int) -> dict:
    """A vocabulary's surface forms; the first call of a process, with and without machine code on disk; growth; memory."""
    by_name = {folder.name: folder for folder in folders}
    large = large_vocabulary(folders)
    targets = {"gpt2": load_tokenizer(by_name["gpt2"]).tokens, f"{LARGE} tokens": large}
    pairs = {}
    for name in ("mistral-v1", "gpt2", "unigram-16k-multi"):
        source = load_tokenizer(by_name[name])
        for target, tokens in targets.items():
            ours, lengths = source.decompose(tokens).padded(PIECES)
            expected = reference_forms(source, tokens)
            whole = [not (b"\xef\xbf\xbd" in t or "�" in t.decode("utf-8", "replace")) for t in tokens]
            seconds = median_seconds(
                repeats,
                ours=lambda source=source, tokens=tokens: source.decompose(tokens).padded(PIECES),
                reference=lambda source=source, tokens=tokens: reference_forms(source, tokens),
            )
            pairs[f"{target} by {name}"] = {
                "tokens": len(tokens),
                "mean_pieces": float(lengths.mean()),
                "equal": float((ours == expected).all(1)[whole].mean()),
                "seconds": seconds,
                "ratio": seconds["reference"] / seconds["ours"],
                "megabytes": {
                    "ours": peak_megabytes(lambda source=source, tokens=tokens: source.decompose(tokens).padded(PIECES)),
                    "reference": peak_megabytes(lambda source=source, tokens=tokens: reference_forms(source, tokens)),
                },
            }
    source = load_tokenizer(by_name["mistral-v1"])
    growth = {n: median_seconds(repeats, ours=lambda n=n: source.decompose(large[:n]))["ours"] for n in _sizes(LARGE)}
    return {"pairs": pairs, "seconds_by_tokens": growth, "first_call": first_call(by_name["mistral-v1"], by_name["gpt2"])}


def _sizes(largest: int) -> list[int]:
    return [n for n in (4_000, 16_000, 64_000) if n < largest] + [largest]


def first_call(source: Path, target: Path) -> dict[str, float]:
    """Seconds of CPU from nothing imported to surface forms, in processes of their own."""
    code = f"""
import time
from zett.vocab import load_tokenizer
source, target = load_tokenizer({str(source)!r}), load_tokenizer({str(target)!r})
clock = time.process_time()
source.decompose.cached(target.tokens)
print(time.process_time() - clock)
"""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("compiling", "machine code on disk", "decomposition on disk"):
            if name == "machine code on disk":
                for file in Path(folder, "zett", "decompositions").iterdir():
                    file.unlink()
            environ = os.environ | {"ZETT_CACHE": f"{folder}/zett", "NUMBA_CACHE_DIR": f"{folder}/numba"}
            run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
            results[name] = float(run.stdout)
    return results


# --------------------------------------------------------------------------------------------------------- token bytes


def token_bytes(folders: Sequence[Path], repeats: int) -> dict:
    """From a folder to the bytes of all tokens. The reference decodes one id after another."""
    import tokenizers

    def reference(folder: Path) -> list[str]:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]

    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        large = Path(temporary, f"{LARGE} SentencePiece")
        write_large_tokenizer(large, large_vocabulary(folders))
        for folder in [*(f for f in folders if f.name in ("gpt2", "mistral-v1")), large]:
            size = len(load_tokenizer(folder))
            seconds = median_seconds(
                repeats, ours=lambda folder=folder: load_tokenizer(folder), reference=lambda folder=folder: reference(folder)
            )
            results[folder.name] = {"tokens": size, "seconds": seconds, "ratio": seconds["reference"] / seconds["ours"]}
    return results


def write_large_tokenizer(folder: Path, tokens: Sequence[bytes]) -> None:
    """A SentencePiece BPE with byte fallback; a token has a merge for each way to put it together from two others."""
    texts = {t.decode("utf-8", "replace").replace(" ", SPACE_MARK) for t in tokens if t}
    texts |= {char for text in texts for char in text}
    vocab = {"<unk>": 0} | {f"<0x{b:02X}>": b + 1 for b in range(256)}
    for text in sorted(texts - vocab.keys(), key=lambda text: (len(text), text)):
        vocab[text] = len(vocab)
    merges = [
        (t[:k], t[k:]) for t in vocab if not t.startswith("<") for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab
    ]
    model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True, "vocab": vocab, "merges": merges}
    spec = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK},
        "model": model,
    }
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ sampling

VOCABULARY, TEXTS, CHARACTERS = 32_768, 2048, 2000


def excerpts(number: int, characters: int) -> list[str]:
    """Random parts of the Python sources on this machine."""
    documents, rng, found = open_text("python"), np.random.default_rng(SEED), []
    while len(found) < number:
        text = documents[int(rng.integers(len(documents)))]
        if len(text) > characters:
            start = int(rng.integers(len(text) - characters))
            found.append(text[start : start + characters])
    return found


def reference_candidates(texts: Sequence[str], config: SamplerConfig, *, distinct: bool) -> list[bytes]:
    """The best substrings by count x length; distinct: whether each word is cut into them only once."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(WORD_REGEX), "isolated")
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    counts: Counter[bytes] = Counter()
    for word in (w for w, n in words.items() if n > 1 for _ in range(1 if distinct else n)):
        chars = [char.encode() for char in word[:64]]
        for start in range(len(chars)):
            part = b""
            for char in chars[start:]:
                part += char
                if len(part) > config.max_bytes:
                    break
                if len(part) > 1:
                    counts[part] += words[word] if distinct else 1
    others = sorted(counts.keys() - {*REQUIRED}, key=lambda part: (-counts[part] * len(part), part))
    return [*REQUIRED, *others[: config.inventory]]


def make_sampler(source: Vocabulary, **changes) -> Sampler:
    config = {"bpe": 0.0, "unigram": 0.0, "substring": 0.0, "sizes": "fixed", "max_size": VOCABULARY, "pool": 1} | changes
    return Sampler(SamplerConfig(**config), [open_text("python")], source, PIECES, 0)


def sampling(folders: Sequence[Path], repeats: int) -> dict:
    """A vocabulary of 32,768 from 2,048 texts of 2,000 characters, from the inventory, and from the queue; growth; memory."""
    source = next(load_tokenizer(folder) for folder in folders if folder.name == "mistral-v1")
    texts = excerpts(TEXTS, CHARACTERS)
    config = SamplerConfig(inventory=VOCABULARY - len(REQUIRED))
    zeros = np.zeros(TEXTS, np.int64)
    expected = reference_candidates(texts, config, distinct=True)
    found, _ = count_candidates(texts, zeros, 1, config)
    shared = len({*found} & {*expected}) / len(expected)  # the last ones are equally good
    assert shared > 0.99, shared
    seconds = median_seconds(
        min(repeats, 3),
        ours=lambda: count_candidates(texts, zeros, 1, config),
        reference_distinct_words=lambda: reference_candidates(texts, config, distinct=True),
        reference=lambda: reference_candidates(texts, config, distinct=False),
    )
    clock = time.perf_counter()
    sampler = make_sampler(source, substring=1.0)
    first_start = time.perf_counter() - clock
    clock = time.perf_counter()
    make_sampler(source, substring=1.0)
    second_start = time.perf_counter() - clock
    queue = make_sampler(source, substring=1.0, queue=TEXTS)
    steps = iter(range(1_000_000))
    draws = median_seconds(
        repeats, inventory=lambda: sampler.draw(next(steps)), queue=lambda: queue.draw(next(steps)),
    )  # fmt: skip
    growth = {}
    for size in _sizes(LARGE // 2):
        other = make_sampler(source, substring=1.0, max_size=size)
        growth[size] = median_seconds(repeats, draw=lambda other=other: other.draw(next(steps)))["draw"]
    return {
        "texts": TEXTS,
        "characters": CHARACTERS,
        "vocabulary": len(expected),
        "shared_with_reference": shared,
        "seconds_from_texts": seconds,
        "ratio": seconds["reference"] / seconds["ours"],
        "ratio_to_distinct_words": seconds["reference_distinct_words"] / seconds["ours"],
        "seconds_of_a_draw": draws,
        "ratio_from_inventory": seconds["reference_distinct_words"] / draws["inventory"],
        "seconds_of_a_draw_by_vocabulary": growth,
        "seconds_of_start": {"inventory made": first_start, "inventory on disk": second_start},
        "megabytes": {
            "from texts": peak_megabytes(lambda: count_candidates(texts, zeros, 1, config)),
            "from texts, reference": peak_megabytes(lambda: reference_candidates(texts, config, distinct=True)),
            "from the inventory": peak_megabytes(lambda: sampler.draw(0)),
        },
    }


# ----------------------------------------------------------------------------------------------------------- data step


def data_step(folders: Sequence[Path], repeats: int) -> dict:
    """Host work of a training step: draw 32,768 tokens, make the tokenizer, encode 128 x 128 tokens, surface forms, features.

    The reference counts 2,048 texts for kind "substring", and has the tokens of the other kinds for nothing.
    """
    source = next(load_tokenizer(folder) for folder in folders if folder.name == "mistral-v1")
    texts, rows = excerpts(TEXTS, CHARACTERS), [text[: 12 * 128] for text in excerpts(128, CHARACTERS)]
    config = SamplerConfig(inventory=VOCABULARY - len(REQUIRED))
    samplers = {kind: make_sampler(source, **{kind: 1.0}) for kind in KINDS}
    results = {}
    for kind, sampler in samplers.items():
        draw = sampler.draw(0)
        listed, plain = list(draw.tokens), [t for t in draw.tokens if t]

        def build_and_encode(draw=draw) -> list[list[int]]:
            tokenizer = draw.build()
            return [tokenizer.encode(row, add_special_tokens=False).ids[:128] for row in rows]

        ids, lengths = draw.encode(rows, 128)
        assert [row[:n].tolist() for row, n in zip(ids, lengths)] == build_and_encode()
        readable = np.asarray([t and "\ufffd" not in t.decode("utf-8", "replace") for t in listed], bool)
        np.testing.assert_array_equal(draw.forms.pieces[readable], reference_forms(source, listed)[readable])
        parts = median_seconds(
            repeats,
            draw=lambda sampler=sampler: sampler.draw(0),
            encode=lambda draw=draw: draw.encode(rows, 128),
            reference_build_and_encode=build_and_encode,
            reference_forms=lambda listed=listed: reference_forms(source, listed),
            reference_features=lambda plain=plain: reference_extensions(plain),
        )
        if kind == "substring":
            calls = {"reference_vocabulary": lambda: reference_candidates(texts, config, distinct=True)}
            parts |= median_seconds(min(repeats, 3), **calls)
        ours = parts["draw"] + parts["encode"]
        reference = sum(value for name, value in parts.items() if name.startswith("reference"))
        results[kind] = {
            "tokens": len(listed),
            "seconds": parts,
            "seconds_ours": ours,
            "seconds_reference": reference,
            "ratio": reference / ours,
            "ratio_without_vocabulary": (reference - parts.get("reference_vocabulary", 0.0)) / ours,
            "cores_for_a_step_of_1.5_s": ours / 1.5,
            "megabytes": {
                "ours": peak_megabytes(lambda sampler=sampler: sampler.draw(0).encode(rows, 128)),
                "reference": peak_megabytes(lambda listed=listed: (build_and_encode(), reference_forms(source, listed))),
            },
        }
    sampler, steps = samplers["substring"], 32
    by_workers = {}
    for workers in (1, 2, 4):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            clock = time.perf_counter()
            list(pool.map(lambda step: sampler.draw(step).encode(rows, 128), range(steps)))
            by_workers[workers] = (time.perf_counter() - clock) / steps
    return {"kinds": results, "seconds_a_step_by_threads": by_workers, "cores": os.cpu_count()}


def reference_extensions(tokens: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """For each token, how many longer ones begin and end with it, by counting all beginnings and all ends."""
    begins = Counter(t[:k] for t in tokens for k in range(1, len(t)))
    ends = Counter(t[k:] for t in tokens for k in range(1, len(t)))
    return [begins[t] for t in tokens], [ends[t] for t in tokens]


# -------------------------------------------------------------------------------------------------------- command line

SECTIONS = {"decomposition": decomposition, "token bytes": token_bytes, "sampling": sampling, "data step": data_step}


def main() -> None:
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--tokenizers", type=Path, required=True, help="folder of tokenizer folders")
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="others keep what --output has for them"
    )
    args = parser.parse_args()
    folders = sorted(path.parent for path in args.tokenizers.glob("*/tokenizer.json"))
    kept = json.loads(args.output.read_text()) if args.output and args.output.exists() else {}
    report = kept | {name: SECTIONS[name](folders, args.repeats) for name in args.sections}
    finish(report, args.output)


if __name__ == "__main__":
    main()
