"""Ways to get the table of a target vocabulary: one file a method, the hypernetwork among them.

A method is a frozen dataclass whose fields are its settings. Called with a base model and a target vocabulary, it returns an
`EmbeddingTable`. On the command line and in Python it is written `NAME` or `NAME:SETTING=VALUE,...`. A new method is one file
and one line in METHODS.
"""

import dataclasses
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
    "first_last": "zett.methods.first_last:FirstLast",
    "weighted": "zett.methods.weighted:Weighted",
    "omp": "zett.methods.omp:OMP",
    "clp": "zett.methods.clp:CLP",
    "focus": "zett.methods.focus:FOCUS",
    "wechsel": "zett.methods.wechsel:WECHSEL",
    "ofa": "zett.methods.ofa:OFA",
    "tokenadapt": "zett.methods.tokenadapt:TokenAdapt",
    "trans": "zett.methods.trans:Trans",
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


def spec_of(method: Method) -> str:
    """The text from which `make_method` makes the same method; where there is none, as of a method of one's own, its repr."""
    kind = type(method)
    for name, where in METHODS.items():
        if where != f"{kind.__module__}:{kind.__qualname__}":
            continue
        fields = dataclasses.fields(method)  # type: ignore[arg-type]
        given = {field.name: getattr(method, field.name) for field in fields if getattr(method, field.name) != field.default}
        spec = ":".join([name, ",".join(f"{setting}={value}" for setting, value in given.items())] if given else [name])
        try:
            return spec if make_method(spec) == method else repr(method)
        except UserError:  # a value with a comma in it
            return repr(method)
    return repr(method)
