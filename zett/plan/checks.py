"""Checks of a config that need no data: a dry run and the start of a run make the same ones."""

from zett.config import Config
from zett.errors import UserError
from zett.plan.shapes import Checks
from zett.recipes import recipe_class
from zett.vocab import load_tokenizer


def check_inputs(config: Config) -> None:
    """UserError with everything that is wrong with a run's inputs and can be found without reading much of them.

    Evaluation targets on the Hub are downloaded: without them a run would end at its first evaluation.
    """
    checks = Checks()
    recipe_class(config.recipe).check(config, checks)
    for name in checks.tokenizers:
        checks(load_tokenizer, name)
    if checks.faults:
        raise UserError(checks.fault)
