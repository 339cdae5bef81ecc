"""What happens when a model gets another tokenizer: two tokenizers compared, before anything is trained or transferred."""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from zett import progress
from zett.arguments import renamed, several
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.inspect.texts import parallel_texts, texts_by_language
from zett.inspect.tokenizer import describe, show_id
from zett.inspect.warnings import warnings_of
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.bytes import UTF8_BYTES
from zett.vocab.pairing import pairing

TEXT_BYTES = 1_000_000
JSON_FORMAT = "zett-inspect-1"


def inspect(
    model: str | Path | Vocabulary | None = None, tokenizer: str | Path | Vocabulary | None = None, *,
    text: str | Path | Sequence[str | Path] = (), parallel: str | Path | Sequence[str | Path] = (),
    reference: str | None = None, max_pieces: int | None = None, text_column: str = "text", text_bytes: int = TEXT_BYTES,
    source: str | Path | Vocabulary | None = None, target: str | Path | Vocabulary | None = None,
) -> dict:  # fmt: skip
    """Compare a `tokenizer`, the target, with that of a base `model`, the source, as a JSON-able dict.

    model, tokenizer (source, target: their old names): a folder with tokenizer.json (a model's is one), that file, a Hub name,
    or "pico". text: files and folders for tokens per byte, by language. parallel: tables of the same content in several
    languages, for token premiums relative to the language `reference`. max_pieces: S, how many source pieces a hypernetwork
    reads of a token (default: a new hypernetwork's). text_bytes: the most that is read of a language. Raises UserError.

    Keys: "source" and "target" (see `describe`), "pair", "special" (see `SpecialToken`), "advice" (the "mode" of `--special` to
    take, and "why"), "text" and "premium" (None without texts), "warnings" (see `warnings_of`).
    """
    source, target = renamed("model", model, "source", source), renamed("tokenizer", tokenizer, "target", target)
    if source is None or target is None:
        raise UserError(f"inspect needs a model and a tokenizer; {'model' if source is None else 'tokenizer'} is missing")
    text, parallel = several(text), several(parallel)
    names = [str(given.folder or "tokenizer") if isinstance(given, Vocabulary) else str(given) for given in (source, target)]
    vocabs = [given if isinstance(given, Vocabulary) else _load(given) for given in (source, target)]
    # Read first: a mistake in the files should not cost the time of the rest.
    texts = texts_by_language(text, text_column, text_bytes) if text else None
    pairs = parallel_texts(parallel, reference, text_bytes) if parallel else None
    base, new = vocabs
    progress.say(f"taking {len(new):,} tokens apart into pieces of the base model's tokenizer")
    lengths = base.decompose.cached(new.tokens).lengths
    size = HypernetConfig().max_pieces if max_pieces is None else max_pieces
    special = pairing(new, base)
    report = {
        "source": describe(base, names[0]),
        "target": describe(new, names[1]),
        "pair": _pair(base, new, lengths, size),
        "special": [dataclasses.asdict(token) | {"reserved": token.reserved} for token in special.tokens],
        "advice": {"mode": special.mode, "why": special.why},
        "text": None if texts is None else _on_text(base, new, texts, lengths, size),
        "premium": None if pairs is None else _premium(base, new, *pairs),
    }
    return report | {"warnings": warnings_of(base, new, special, report)}


def _load(name: str | Path) -> Vocabulary:
    return load_tokenizer(Path(__file__).parents[1] / "assets" / "pico" if str(name) == "pico" else name)


def _pair(source: Vocabulary, target: Vocabulary, lengths: np.ndarray, size: int) -> dict:
    """How the target's tokens look in the source's pieces."""
    present = [i for i, token in enumerate(target.tokens) if token]
    shared = {target.tokens[i] for i in present} & source.id_of.keys()
    used = lengths[present]
    longest = sorted(present, key=lambda i: (-lengths[i], i))[:20]
    lacking = [b for b in UTF8_BYTES if bytes([b]) not in source.id_of]
    return {
        "shared": len(shared),
        "shared_of_target": len(shared) / len(target.id_of),
        "shared_of_source": len(shared) / max(len(source.id_of), 1),
        "pieces_per_token": {str(n): int(c) for n, c in enumerate(np.bincount(used)) if c},
        "one_piece": _one_piece(source, target, lengths),
        "mean_pieces": float(used.mean()),
        "max_pieces": size,
        "longer": int((used > size).sum()),
        "longest": [{"token": show_id(target, i), "pieces": int(lengths[i])} for i in longest if lengths[i] > size],
        "bytes_without_source_token": len(lacking),
    }


def _one_piece(source: Vocabulary, target: Vocabulary, lengths: np.ndarray) -> dict:
    """Of what the target's ids in one source piece consist: both + repeated - cut + normalised + bytes.

    both: tokens that are in both; repeated: further ids of the target with the bytes of one of these; cut: ids of both that the
    source's model makes of several pieces; normalised: ids that are a source token after the source's normaliser; bytes: single
    bytes that the source has no token for.
    """
    present = [i for i, token in enumerate(target.tokens) if token]
    both = [i for i in present if target.tokens[i] in source.id_of]
    others = [target.tokens[i] for i in present if lengths[i] == 1 and target.tokens[i] not in source.id_of]
    lacking = int((source.decompose(others).ids >= len(source)).sum()) if others else 0
    distinct = len({target.tokens[i] for i in both})
    return {
        "both": distinct,
        "repeated": len(both) - distinct,
        "cut": int((lengths[both] != 1).sum()),
        "normalised": len(others) - lacking,
        "bytes": lacking,
    }


def _on_text(source: Vocabulary, target: Vocabulary, texts: dict[str, list[str]], lengths: np.ndarray, size: int) -> dict:
    """Tokens per byte and what the target's tokens in use are made of, by language and over all."""
    shared = np.asarray([token in source.id_of for token in target.tokens])
    languages = {}
    for language, documents in texts.items():
        ids = [_ids(vocab, documents) for vocab in (source, target)]
        counted = {
            "documents": len(documents),
            "bytes": sum(len(text.encode("utf-8", "replace")) for text in documents),
            "source_tokens": len(ids[0]),
            "target_tokens": len(ids[1]),
            "source_unknown": int((ids[0] == source.roles.get("unk", -1)).sum()),
            "target_unknown": int((ids[1] == target.roles.get("unk", -1)).sum()),
            "target_shared": int(shared[ids[1]].sum()),
            "target_longer": int((lengths[ids[1]] > size).sum()),
        }
        languages[language] = counted | _rates(counted)
    total = {key: sum(counted[key] for counted in languages.values()) for key in counted}
    return {"languages": languages, "all": total | _rates(total)}


def _rates(counted: dict) -> dict:
    size, old, new = (max(counted[key], 1) for key in ("bytes", "source_tokens", "target_tokens"))
    return {
        "source_tokens_per_byte": counted["source_tokens"] / size,
        "target_tokens_per_byte": counted["target_tokens"] / size,
        "relative_length": counted["target_tokens"] / old,
        "target_shared_share": counted["target_shared"] / new,
        "target_longer_share": counted["target_longer"] / new,
    }


def _ids(vocab: Vocabulary, texts: list[str]) -> np.ndarray:
    encodings = vocab.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.asarray(encoding.ids, np.int64) for encoding in encodings])


def _premium(source: Vocabulary, target: Vocabulary, reference: str, pairs: dict[str, list[tuple[str, str]]]) -> dict:
    """Tokens and bytes that a language takes for what the reference language says, and unknown tokens."""
    languages = {}
    for language, both in pairs.items():
        unknown: dict[str, float] = {}
        counts = {"bytes": [sum(len(t.encode("utf-8", "replace")) for t in side) for side in zip(*both)]}
        for name, vocab in (("source", source), ("target", target)):
            ids = [_ids(vocab, list(side)) for side in zip(*both)]
            counts[name] = [len(side) for side in ids]
            unknown[f"{name}_unknown"] = float((ids[1] == vocab.roles.get("unk", -1)).mean()) if len(ids[1]) else 0.0
        languages[language] = {"pairs": len(both)} | {name: b / max(a, 1) for name, (a, b) in counts.items()} | unknown
    return {"reference": reference, "languages": languages}


# ---------------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `zett inspect`."""
    add = parser.add_argument
    add("--model", help="base model: a folder, a tokenizer.json, a Hub name, or pico; only its tokenizer is read")
    add("--tokenizer", help="target tokenizer: a folder with tokenizer.json, that file, or a Hub name")
    for old, new in (("--source", "model"), ("--target", "tokenizer")):
        add(old, dest=new, help=argparse.SUPPRESS)
    add(
        "--text", nargs="+", default=[], metavar="PATH",
        help="text files (txt, md, rst, py, jsonl, tsv, csv, parquet, also with .gz or .zst) and folders of them, for tokens "
        "per byte by language: a table's column lang, else the name of the file or its folder",
    )  # fmt: skip
    add(
        "--parallel", nargs="+", default=[], metavar="PATH",
        help="tables (parquet, jsonl, tsv, csv) of the same content in several languages, for token premiums: a column for "
        "each language; or en, xx, lang; or text, lang, id",
    )  # fmt: skip
    add("--reference", metavar="LANG", help="language that premiums are relative to (default: en, if it is there)")
    add("--text-column", default="text", metavar="NAME", help="column of the tables of --text (default: %(default)s)")
    add("--text-bytes", type=int, default=TEXT_BYTES, metavar="N", help="bytes to read of each language (default: %(default)s)")
    add("--hypernet", metavar="DIR", help="hypernetwork whose S counts (how many source pieces it reads of a token)")
    add("--max-pieces", type=int, metavar="S", help=f"or S itself (default: {HypernetConfig().max_pieces})")
    add("--json", metavar="FILE", help="write everything as JSON ('-': to the terminal, in place of the tables)")
    add("--html", metavar="FILE", help="write a page with plots, one file that needs nothing else")
    add("--overwrite", action="store_true", help="replace files of --json and --html also if inspect did not write them")


def run(args: argparse.Namespace) -> int:
    """Inspect as the arguments say: print tables, write the files. Raises UserError."""
    from zett.inspect.page import page
    from zett.inspect.terminal import tables

    absent = [f"--{name}" for name in ("model", "tokenizer") if getattr(args, name) is None]
    if absent:
        raise UserError(f"the following arguments are required: {', '.join(absent)} (zett inspect --help lists the arguments)")
    for name in ("text_bytes", "max_pieces"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it has to be greater than 0")
    if args.hypernet and args.max_pieces:
        raise UserError("--hypernet and --max-pieces both say S; give one of the two")
    files = _outputs(args)  # before the slow part
    report = inspect(
        args.model, args.tokenizer, text=args.text, parallel=args.parallel, reference=args.reference,
        max_pieces=_pieces_of(args.hypernet) if args.hypernet else args.max_pieces,
        text_column=args.text_column, text_bytes=args.text_bytes,
    )  # fmt: skip
    as_json = json.dumps({"format": JSON_FORMAT, **report}, indent=1, ensure_ascii=False) + "\n"
    print(as_json if args.json == "-" else tables(report), end="")
    _write((file, as_json if name == "json" else page(report)) for name, file in files.items())
    return 0


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """The files to write, by argument. UserError for one that would replace what `zett inspect` did not write."""
    from zett import folders
    from zett.inspect.page import GENERATOR

    given = {"json": args.json if args.json != "-" else None, "html": args.html}
    files = {name: folders.output_path(file, f"--{name}") for name, file in given.items() if file is not None}
    texts = [Path(path).expanduser() for path in (*args.text, *args.parallel)]
    # A report may lie in a folder of texts, but not be one of them.
    read = [Path(path).expanduser() for path in (args.model, args.tokenizer, args.hypernet or "pico") if path != "pico"]
    read += [path for path in texts if path.is_file()]
    if len({file.resolve() for file in files.values()}) < len(files):
        raise UserError(f"--json and --html are both {files['html']}; give two files")
    for name, file in files.items():
        for path in filter(Path.exists, read):
            folders.check_outside(file, path, f"--{name}")
        if file.is_dir():
            raise UserError(f"--{name} {file} is a folder; give the name of a file")
        sign = GENERATOR if name == "html" else f'"format": "{JSON_FORMAT}"'
        if file.exists() and not args.overwrite and sign.encode() not in file.read_bytes()[:1000]:
            raise UserError(f"--{name} {file} is there, and zett inspect did not write it; give another file, or --overwrite")
    return files


def _pieces_of(hypernet: str) -> int:
    folder = Path(__file__).parents[1] / "assets" / "pico-hypernet" if hypernet == "pico" else Path(hypernet).expanduser()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # ZeTT's published ones call it by another name.
        return int(config["hypernet"]["max_pieces"] if "hypernet" in config else config["hn_surface_maxlen"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--hypernet {hypernet}: no hypernetwork there (a folder whose config.json says max_pieces)") from None


def _write(files: Iterable[tuple[Path, str]]) -> None:
    """Each file whole or not at all."""
    for path, content in files:
        beside = path.with_name(f".{path.name}.tmp")
        try:
            beside.write_bytes(content.encode("utf-8", "backslashreplace"))
            os.replace(beside, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        finally:
            beside.unlink(missing_ok=True)
