"""Ways to get the table of a target vocabulary: one file a method, the hypernetwork among them.

A method is a frozen dataclass whose fields are its settings. Called with a base model and a target vocabulary, it returns an
`EmbeddingTable`. On the command line and in Python it is written `NAME` or `NAME:SETTING=VALUE,...`. A new method is one file
and one line in METHODS.
"""

import importlib
from typing import ClassVar, Protocol

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.spec import settings_of
from zett.nearest import nearest
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


class Method(Protocol):
    """Base model and target vocabulary -> the target's table: `len(target)` valid rows.

    baseline: whether it needs no training, so that trained methods are compared with it. needs: what it takes beside the two,
    in words; "nothing" if they are enough.
    """

    baseline: ClassVar[bool]
    needs: ClassVar[str]

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable: ...


METHODS = {
    "hypernet": "zett.methods.hypernet:HypernetMethod",
    "fvt": "zett.methods.fvt:FVT",
    "mean": "zett.methods.mean:Mean",
    "random": "zett.methods.random:Random",
}


def method_class(name: str) -> type[Method]:
    """The method called `name`, without settings. UserError names the nearest where there is none."""
    if name not in METHODS:
        raise UserError(f"method {name!r} does not exist; {nearest(name, METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_method(spec: str, **settings) -> Method:
    """A method from `NAME` or `NAME:SETTING=VALUE,...`, and settings as Python values. UserError for a wrong name or value."""
    name, _, rest = spec.partition(":")
    made = method_class(name)
    return made(**settings_of(made, rest, f"method {name}", settings))
