"""The files of a tokenizer, copied as they are."""

import json
import shutil
from pathlib import Path

import tokenizers

from zett.files.folders import TOKENIZER_FILES, copy_files, found
from zett.files.jsonfile import write_json
from zett.vocab.vocabulary import Vocabulary


def copy_tokenizer(folder: Path, target: Vocabulary, file: Path | None) -> str:
    """Copy the target's files into `folder` as they are; returns the name of the Transformers class that loads them.

    file: a tokenizer.json that was given alone; None: the files come from `target.folder`.
    """
    if file is not None and _complete(file, target):
        shutil.copyfile(file, folder / "tokenizer.json")
    elif file is None and target.folder is not None:
        copy_files(found(Path(target.folder), TOKENIZER_FILES), folder)
    if not (folder / "tokenizer.json").is_file():
        target.tokenizer.save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        special = {f"{role}_token": target.tokenizer.id_to_token(i) for role, i in target.roles.items()}
        write_json(config, {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special})
    return json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") or "PreTrainedTokenizerFast"


def _complete(file: Path, target: Vocabulary) -> bool:
    """Whether a tokenizer.json has all of the target's tokens: the files that were beside it may have named more."""
    return tokenizers.Tokenizer.from_file(str(file)).get_vocab_size() == target.tokenizer.get_vocab_size()
