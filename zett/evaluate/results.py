"""What an evaluation gives, and the files that it is kept in."""

import dataclasses
import json
from pathlib import Path

JSON_NAME, PLOT_NAME, CLASSES_NAME = "report.json", "report.png", "classes.png"
AS_IT_IS = "as it is"  # in the place of a method: a model with the rows that it has


@dataclasses.dataclass(frozen=True)
class Score:
    """One method on one target tokenizer.

    bits_per_byte: the mean of the task's scores, whatever they are. ratio: that over the original's. fvt_gap_left: (bits -
    original) / (FVT's bits - original), None without FVT or where FVT loses nothing. Errors are standard errors, by a paired
    bootstrap over the windows. seconds: to make the table, or to read a model that is measured as it is. details: what else the
    task says, by name.
    """

    bits_per_byte: float
    ratio: float
    ratio_error: float
    fvt_gap_left: float | None
    fvt_gap_left_error: float | None
    seconds: float
    details: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ClassExcess:
    """What tokens of one class cost beyond what the original needs. tokens: of the text. bits: for each byte of the text."""

    name: str
    tokens: int
    bits: float


@dataclasses.dataclass(frozen=True)
class TokenExcess:
    """The same of one token, but bits in all. count: in the text. pieces: of the original's tokenizer."""

    token: str
    id: int
    pieces: tuple[str, ...]
    count: int
    bits: float


@dataclasses.dataclass(frozen=True)
class Excess:
    """Where a method loses bits; see zett/evaluate/excess.py. bits: in all, for each byte of the text, as the classes add up.

    pieces, content: classes by how tokens are spelled in the original's, and by what they spell. worst: tokens, those that cost
    most first.
    """

    bits: float
    pieces: tuple[ClassExcess, ...]
    content: tuple[ClassExcess, ...]
    worst: tuple[TokenExcess, ...]


@dataclasses.dataclass(frozen=True)
class TargetResult:
    """All methods on one target tokenizer.

    relative_length: tokens that the text takes, over those of the original tokenizer. shared: share of the vocabulary that the
    original has too. bytes_lost: share of the text's bytes that its tokens do not stand for. excess: where bits are lost, by
    method, if that was asked for.
    """

    name: str
    kind: str
    vocab_size: int
    tokens_per_byte: float
    relative_length: float
    shared: float
    bytes_lost: float
    losses: tuple[str, ...]
    scores: dict[str, Score]
    excess: dict[str, Excess] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate` measured.

    baselines: the methods that need no training, with which others are compared.
    """

    base: dict
    text: dict  # what was measured: see zett/evaluate/windows.py
    original: dict  # bits_per_byte, tokens_per_byte, vocab_size, bytes_lost, and perhaps details
    hypernets: dict[str, str]  # folder by name
    targets: list[TargetResult]
    settings: dict
    environment: dict
    baselines: tuple[str, ...] = ("fvt", "mean", "random")  # those of reports of earlier versions, which do not say

    @property
    def methods(self) -> list[str]:
        """Names in the order of evaluation."""
        return list(self.targets[0].scores) if self.targets else []

    @property
    def model(self) -> str:
        """The base model's name without the folders that it lies in, and a file's without its ending."""
        return Path(self.base["name"]).name.removesuffix(".gguf") or self.base["name"]

    @property
    def unit(self) -> str:
        """What was measured, in words; reports of earlier versions do not say."""
        return self.settings.get("measure", "bits per byte")

    @property
    def lower_is_better(self) -> bool:
        return self.settings.get("lower_is_better", True)


def load(path: str | Path) -> Report:
    """The report in a folder that `save` wrote, or in a report.json."""
    path = Path(path)
    content = json.loads((path / JSON_NAME if path.is_dir() else path).read_text())
    for target in content["targets"]:
        target["scores"] = {name: Score(**score) for name, score in target["scores"].items()}
        if target.get("excess"):
            target["excess"] = {name: _excess(found) for name, found in target["excess"].items()}
    content["targets"] = [TargetResult(**target) for target in content["targets"]]
    return Report(**content)


def _excess(content: dict) -> Excess:
    kinds = {"pieces": ClassExcess, "content": ClassExcess, "worst": TokenExcess}
    rows = {name: tuple(kind(**row) for row in content[name]) for name, kind in kinds.items()}
    return Excess(content["bits"], **rows)
