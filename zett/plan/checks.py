"""What can be said of a config before anything is read: the same for a dry run and for a start."""

from zett.config import Config
from zett.errors import UserError
from zett.plan.shapes import Checks
from zett.recipes import recipe_class
from zett.vocab import load_tokenizer


def check_inputs(config: Config) -> None:
    """UserError with all that is wrong with what a run reads, as far as it can be told without reading much of it.

    Evaluation targets on the Hub are read, since a run that cannot evaluate would end at its first evaluation.
    """
    checks = Checks()
    recipe_class(config.recipe).check(config, checks)
    for name in checks.tokenizers:
        checks(load_tokenizer, name)
    if checks.faults:
        raise UserError(checks.fault)
