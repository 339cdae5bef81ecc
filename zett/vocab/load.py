"""Reading a tokenizer's files into a `Vocabulary`."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from zett.errors import UserError
from zett.files.resolve import TOKENIZER, find, local
from zett.vocab.bytes import BYTE_TO_CHAR, token_bytes, token_format
from zett.vocab.named import append_named, role_files
from zett.vocab.normalise import Normaliser
from zett.vocab.pairing import MARKERS, ROLES, WELL_KNOWN
from zett.vocab.patterns import check_patterns
from zett.vocab.priors import rank_prior, score_prior
from zett.vocab.vocabulary import Vocabulary

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
MODEL_CONFIGS = ("config.json", "generation_config.json")  # a model's, which may lie beside its tokenizer and name tokens by id
MAX_FILE_BYTES = 256 * 2**20  # reading takes ten times as much memory; the largest in use have 40 MB


def load_tokenizer(path: str | Path, *, rows: int | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer: a folder with tokenizer.json, that file, a GGUF file, or a name on the Hub.

    Tokens that only the folder's other files name belong to it. rows: how many rows the model has whose tokenizer it is; such
    tokens are left out if they have no row. Raises UserError if there is no tokenizer, or none that can be read and used (see
    zett/vocab/patterns.py).
    """
    folder = _locate(path)
    file = folder / "tokenizer.json"
    tokenizer = _read(file) if file.exists() else _converted(folder)
    if file.exists():
        append_named(tokenizer, folder, rows)
    # These are settings for training. Here, a text is always the same sequence of tokens, with none cut off or added.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    declared: dict[str, str] = {}
    for name in role_files(folder):
        declared |= _declared_roles(folder / name)
    try:
        check_patterns(tokenizer)
        return vocabulary_of(tokenizer, declared, folder, _ids_in_configs(folder))
    except UserError as error:
        raise UserError(f"{file if file.exists() else folder}: {error}") from None


def _read(file: Path):
    import tokenizers

    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise UserError(f"{file} has {size / 2**20:.0f} MiB; tokenizers of up to {MAX_FILE_BYTES // 2**20} MiB are read")
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except BaseException as error:  # the library raises bare Exception; and PanicException, which is none
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"{file} is not a tokenizer: {error}") from None
        raise


def _locate(path: str | Path) -> Path:
    from zett.gguf import convert_tokenizer, find_gguf  # imports gguf, which most tokenizers do not need

    given = local(path, TOKENIZER)
    if (file := find_gguf(given)) is not None:
        return convert_tokenizer(file)
    if given.is_file() and given.name == "tokenizer.json":
        return given.parent
    if given.is_file():
        raise UserError(f"{given} is not a tokenizer: give a folder with tokenizer.json, that file, or a GGUF file")
    return find(path, TOKENIZER)


def _converted(folder: Path):
    """A tokenizer without tokenizer.json ("slow"), which Transformers converts to the tokenizers library's ("fast") form."""
    if not any((folder / name).exists() for name in TOKENIZER.patterns[0] if name not in MODEL_CONFIGS):
        raise UserError(f"{folder} holds no tokenizer (no tokenizer.json or vocabulary file)")
    if not any((folder / name).exists() for name in ("tokenizer_config.json", "config.json")):
        raise UserError(
            f"{folder}: no tokenizer.json, and nothing that says which class of tokenizer the vocabulary file is for; "
            'put in a tokenizer_config.json with a line like {"tokenizer_class": "GPT2Tokenizer"}'
        )
    pieces = next(filter(Path.exists, (folder / name for name in SENTENCEPIECE_FILES)), None)
    if pieces is not None and importlib.util.find_spec("sentencepiece") is None:
        raise UserError(f"{folder}: no tokenizer.json, and reading {pieces.name} takes a package: pip install sentencepiece")
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: no tokenizer.json, and Transformers cannot convert what is there: {reason}") from None
    if type(loaded).__name__ == "ByT5Tokenizer":
        return _byt5(loaded.added_tokens_decoder)
    if not hasattr(loaded, "backend_tokenizer"):
        raise UserError(f"{folder}: no tokenizer.json, and Transformers has no fast form of {type(loaded).__name__}")
    return loaded.backend_tokenizer


def _byt5(special: dict[int, Any]):
    """ByT5's tokenizer, which Transformers has as code: byte b has the id b + 3, special tokens the ids around these."""
    import tokenizers

    vocab = {char: byte + 3 for byte, char in enumerate(BYTE_TO_CHAR)} | {token.content: i for i, token in special.items()}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([token for _, token in sorted(special.items())])
    return tokenizer


def _declared_roles(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object, which gives special tokens by role")
    found = {}
    for role in ROLES:
        value = content.get(f"{role}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[role] = text
    return found


def _ids_in_configs(folder: Path) -> dict[str, list[int]]:
    """Ids by role, from a model's configs in the tokenizer's folder; those of generation_config.json come first."""
    found: dict[str, list[int]] = {}
    for name in reversed(MODEL_CONFIGS):
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{folder / name} is not JSON: {error}") from None
        parts: list = [config, config.get("text_config")] if isinstance(config, dict) else []
        for part in (part for part in parts if isinstance(part, dict)):
            for role in ("bos", "eos", "pad"):
                value = part.get(f"{role}_token_id")
                ids = value if isinstance(value, list) else [value]
                found.setdefault(role, []).extend(i for i in ids if type(i) is int and i >= 0)
    return found


def _roles(tokenizer, special: dict[str, int], declared: dict[str, str], ids: dict[str, list[int]]) -> dict[str, int]:
    """Ids by role: what the tokenizer's files declare, else what the model's configs say, else tokens with well-known names."""
    roles = {}
    for role in ROLES:
        if role in declared:
            found = tokenizer.token_to_id(declared[role])
        else:
            # A token that the files declare to be something else does not get a role by its name as well.
            names = [t for t in WELL_KNOWN[role] if t in special and t not in declared.values()]
            found = next(iter([*ids.get(role, ()), *(special[t] for t in names)]), None)
        if found is not None:
            roles[role] = found
    return roles


def _structural_ids(tokenizer, special: dict[str, int]) -> set[int]:
    """Ids that a config may give a role: special and added tokens, and tokens with a usual name. Others would be a mistake."""
    names = [name for table in (WELL_KNOWN, MARKERS) for names in table.values() for name in names]
    known = {tokenizer.token_to_id(name) for name in names} - {None}
    return known | set(special.values()) | set(tokenizer.get_added_tokens_decoder())


def vocabulary_of(
    tokenizer,
    declared: dict[str, str] | None = None,
    folder: Path | None = None,
    ids: dict[str, list[int]] | None = None,
) -> Vocabulary:
    """The vocabulary of a `tokenizers.Tokenizer`. declared: texts of special tokens by role. ids: ids by role, from configs."""
    form = token_format(tokenizer)
    tokens = token_bytes(tokenizer, form)
    if not any(tokens):
        raise UserError("the vocabulary is empty")
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if form.unknown is not None and tokenizer.token_to_id(form.unknown) is not None:
        special.setdefault(form.unknown, tokenizer.token_to_id(form.unknown))
    structural = _structural_ids(tokenizer, special) if ids else set()
    ids = {role: [i for i in several if i in structural] for role, several in (ids or {}).items()}
    roles = _roles(tokenizer, special, declared or {}, ids)
    ends = tuple(dict.fromkeys([*([roles["eos"]] if "eos" in roles else []), *ids.get("eos", ())]))
    prior = score_prior(form.scores, tokens) if form.scores else rank_prior(tokens)
    losses = Normaliser(tokenizer, form, tokens).losses()
    return Vocabulary(tuple(tokens), special, roles, prior, form.kind, losses, tokenizer, folder, form, ends)
