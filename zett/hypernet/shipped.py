"""The hypernetworks in the package: which of them is for a model."""

from zett.belongs import AnotherModel, check_belongs, none_fits
from zett.files.resolve import HYPERNETWORK, local
from zett.hypernet.release import load_hypernet
from zett.lms.base import BaseModel


def shipped_for(base: BaseModel) -> str:
    """The name of the one whose base model `base` is, or a variant of it. UserError, with how alike they are, if there is none.

    It takes no time, and `base` may be without its body: `TrainedHypernet.fit` says the last word.
    """
    alike: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in HYPERNETWORK.packaged:
        if not local(name, HYPERNETWORK).is_dir():
            refused[name] = "not in this installation"
            continue
        try:
            check_belongs(base.folder, name)  # from small files; weights of others need not be read
            trained = load_hypernet(name)
            cosine = trained.quick_look(base)
        except AnotherModel as error:
            refused[name] = error.why
            continue
        if cosine is not None:
            alike[name] = cosine
        elif trained.base["fingerprint"] == base.fingerprint:  # one without rows of its base works with that alone
            alike[name] = 1.0
        else:
            refused[name] = "its rows have other values"
    if not alike:
        raise none_fits(base.name, refused)
    return max(alike, key=lambda name: alike[name])
