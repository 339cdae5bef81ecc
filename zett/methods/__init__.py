"""Ways to get the table of a target vocabulary: one file a method, the hypernetwork among them.

A method is a frozen dataclass whose fields are its settings. Called with a base model and a target vocabulary, it returns an
`EmbeddingTable`. On the command line and in Python it is written `NAME` or `NAME:SETTING=VALUE,...`. A new method is one file
and one line in METHODS.
"""

import importlib

from zett.errors import UserError
from zett.methods.method import Method
from zett.methods.spec import settings_of
from zett.values import nearest

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
