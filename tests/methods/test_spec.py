"""Methods as text: `NAME:SETTING=VALUE,...`, checked like the fields of a config."""

import dataclasses
from typing import ClassVar

import pytest

from zett.errors import UserError
from zett.methods import METHODS, make_method, method_class, spec_of
from zett.methods.fvt import FVT
from zett.methods.hypernet import HypernetMethod
from zett.methods.method import Method
from zett.methods.spec import settings_of


@dataclasses.dataclass(frozen=True)
class Toy:
    """With settings of every type."""

    donor: str | None = None
    k: int = 64
    scale: float = 1.0
    centred: bool = False
    layers: tuple[int, ...] = ()

    first: ClassVar[str | None] = "donor"


def made(text: str, **given) -> Toy:
    return Toy(**settings_of(Toy, text, "method toy", given))


def test_every_type_is_read_from_text():
    assert made("") == Toy()
    assert made("k=8,scale=2,centred=true,layers=3") == Toy(k=8, scale=2.0, centred=True, layers=(3,))
    assert made("k=1e3").k == 1000 and made("donor=None") == Toy()
    assert made("k=8", scale=0.5) == Toy(k=8, scale=0.5)
    with pytest.raises(UserError, match="method toy: k is given twice, as 8 and 9; leave one of the two out"):
        made("k=8", k=9)


def test_the_first_setting_may_go_without_its_name():
    assert made("runs/mine/export,k=8") == Toy(donor="runs/mine/export", k=8)
    # A path may hold "=" as long as no setting has the name before it.
    assert made("runs/lr=3e-4/export").donor == "runs/lr=3e-4/export"
    assert made("donor=runs/lr=3e-4/export").donor == "runs/lr=3e-4/export"
    assert make_method("hypernet:runs/mine") == HypernetMethod(path="runs/mine")
    assert make_method("hypernet:runs/mine,language=de") == HypernetMethod("runs/mine", "de")
    assert make_method("hypernet:language=7") == HypernetMethod(None, "7")
    # A comma ends a value; from Python any path can be given.
    assert make_method("hypernet", path="a,b=c") == HypernetMethod("a,b=c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kk=8", "method toy has no setting 'kk'; did you mean k"),
        ("k=8,skale=2", "method toy has no setting 'skale'; did you mean scale"),
        ("k=x", r"method toy: k is 'x' \(str\); it has to be a whole number"),
        ("k=1.5", "k is 1.5"),
        ("centred=2", "centred is '2'"),
        ("layers=a", r"layers\[0\] is 'a'"),
        ("k=8,k=9", "method toy: k is given twice"),
        ("k=8,runs/mine", r"method toy: 'runs/mine' is not SETTING=VALUE; its settings are donor, k, scale, centred, layers"),
        ("a,donor=b", "method toy: donor is given twice"),
        ("a,b/c=d", "method toy has no setting 'b/c'"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        made(text)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("ftv", {}, "method 'ftv' does not exist; did you mean fvt"),
        ("fvt:k=3", {}, "method fvt has no setting 'k'; it has none"),
        ("fvt:x", {}, "method fvt: 'x' is not SETTING=VALUE; it has no settings"),
        ("hypernet:lnguage=de", {}, "method hypernet has no setting 'lnguage'; did you mean language"),
        ("hypernet:a,lnguage=de", {}, "method hypernet has no setting 'lnguage'; did you mean language"),
        ("hypernet", {"path": 3}, r"method hypernet: path is 3 \(int\); it has to be of type str"),
        ("hypernet", {"donor": "x"}, "method hypernet has no setting 'donor'"),
        ("", {}, "method '' does not exist"),
    ],
)
def test_methods_are_checked(spec, settings, message):
    with pytest.raises(UserError, match=message):
        make_method(spec, **settings)


@pytest.mark.parametrize("name", METHODS)
def test_the_registry(name):
    kind = method_class(name)
    assert kind.__doc__ and kind.needs and isinstance(kind.baseline, bool) and Method in kind.__mro__
    assert kind.first is None or kind.first in [field.name for field in dataclasses.fields(kind)]
    assert make_method(name) == kind() and hash(make_method(name)) == hash(kind())
    assert (kind.needs == "nothing") == kind.baseline


@pytest.mark.parametrize("spec", ["fvt", "hypernet", "hypernet:path=runs/lr=3e-4/export", "hypernet:path=x,language=de"])
def test_a_method_as_text_again(spec):
    assert spec_of(make_method(spec)) == spec


def test_a_method_that_no_text_makes():
    assert spec_of(HypernetMethod("a,language=b")).startswith("HypernetMethod(path='a,language=b', language=None, ")
    assert spec_of(Toy()).startswith("Toy(")


def test_a_method_is_the_value_of_its_settings():
    assert make_method("fvt") == FVT() and repr(FVT()) == "FVT()"
    assert repr(make_method("hypernet:x")) == repr(HypernetMethod("x"))
