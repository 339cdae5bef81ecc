"""What a recipe tells the plan: whether a config is right, and what a training step holds and computes."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import PartitionSpec

from zett.config import Config
from zett.data.chats import check_chats
from zett.data.sources import check_source
from zett.errors import UserError
from zett.files import hub
from zett.files.resolve import PACKAGED
from zett.lms.base import body_shapes
from zett.lms.family import Family, is_tied, read_family
from zett.plan.flops import StepFlops
from zett.plan.time import Cost
from zett.vocab import load_tokenizer

PHASES = BODY, TRAINED, UPDATE = "body", "trained network", "update"


@dataclasses.dataclass(frozen=True)
class Part:
    """Bytes on each device during some phases of a step. The phase with the most bytes decides how much memory a run needs."""

    name: str
    bytes: float
    phases: Sequence[str] = PHASES


@dataclasses.dataclass(frozen=True)
class How:
    """How a step is computed: in how many microbatches, what is kept of the layers of the body and of the hypernetwork, and on
    NVIDIA GPUs of which compute capability (0: on other devices).
    """

    microbatches: int = 1
    remat: str = "none"
    remat_hypernet: str = "none"
    capability: float = 0.0

    @classmethod
    def of(cls, config: Config, capability: float = 0.0) -> "How":
        """That of a config, in which what is left to be chosen is as it is where memory is no matter, on an accelerator."""
        train, at_ease = config.train, {"auto": "dots"}
        body, hypernet = (at_ease.get(x, x) for x in (train.remat, train.remat_hypernet))
        return cls(train.microbatches or 1, body, hypernet, capability)


@dataclasses.dataclass(frozen=True)
class BaseShapes:
    """A base model without its weights. table: shapes of its vocabulary's arrays."""

    name: str
    family: Family
    config: Any
    table: dict[str, tuple]

    @property
    def body(self) -> dict[str, tuple]:
        """Shapes of the body's parameters by dotted path."""
        return body_shapes(self.family, self.config)

    @property
    def columns(self) -> int:
        """Columns of the rows that a hypernetwork reads, E."""
        return self.config.hidden_size * (2 if "output" in self.table else 1)


def base_of(name: str, hf: dict) -> BaseShapes:
    """UserError if `hf`, its config.json, is of no known family."""
    family, config = read_family(hf, Path(name) / "config.json")
    rows = (hf["vocab_size"], config.hidden_size)
    table: dict[str, tuple] = {"input": rows} | ({} if is_tied(hf) else {"output": rows})
    if family.bias is not None and config.head and config.output_bias:
        table["bias"] = rows[:1]
    return BaseShapes(name, family, config, table)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """A run in shapes.

    trained: abstract parameters. specs: how they lie on a mesh, by dotted path. rows: how many rows of the vocabulary a typical
    step has. work: FLOPs of such a step. parts: (sizes of the mesh, `How`) -> what each device holds; costs: likewise, what it
    has to do. notes: lines for the end of the report.
    """

    base: BaseShapes
    trained: dict
    specs: dict[str, PartitionSpec]
    rows: int
    work: StepFlops
    parts: Callable[[tuple[int, int, int], How], list[Part]]
    costs: Callable[[tuple[int, int, int], How], list[Cost]]
    notes: tuple[str, ...] = ()


class Checks:
    """Collects what is wrong, so that all of it is told at once, and what cannot be checked without a network.

    tokenizers: the tokenizers on the Hub among what was not checked.
    """

    def __init__(self):
        self.faults: list[str] = []
        self.unchecked: list[str] = []
        self.tokenizers: list[str] = []

    def __call__(self, check: Callable, *args):
        """What `check` returns; None, and a fault noted, if it raises UserError."""
        try:
            return check(*args)
        except UserError as error:
            self.faults.append(str(error))
            return None

    @property
    def fault(self) -> str:
        return "; ".join(dict.fromkeys(self.faults))

    def texts(self, *specs: str | None) -> None:
        """Note what is wrong with text sources. None stands for no source."""
        for spec in dict.fromkeys(filter(None, specs)):
            self.unchecked += [f"data set {name}" for name in self(check_source, spec) or []]

    def chats(self, spec: str | None) -> None:
        """Note what is wrong with a source of conversations. None stands for no source."""
        if spec is not None:
            self.unchecked += [f"data set {name}" for name in self(check_chats, spec) or []]

    def folder(self, what: str, name: str, where: str, load: Callable):
        """What `load` returns for a local folder; None if the name may be one on the Hub. Raises UserError."""
        if name in PACKAGED or Path(name).expanduser().exists():
            return load(name)
        if not hub.is_name(name):
            raise UserError(f"{where} names {name!r}, which is neither a folder nor a name on the Hub")
        self.unchecked.append(f"{what} {name}")
        return None

    def tokenizer(self, name: str, where: str) -> None:
        """Note what is wrong with the name of a tokenizer."""
        if self.folder("tokenizer", name, where, load_tokenizer) is None:
            self.tokenizers.append(name)
