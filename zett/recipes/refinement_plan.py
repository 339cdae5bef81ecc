"""The recipe "refinement" in shapes: whether a config is right, and what a step holds and computes."""

import dataclasses

from zett.config import Config
from zett.lms.known import hf_config_of
from zett.objectives.distillation import check_taught
from zett.plan.memory import BodyStep, abstract_mesh, sharded_rows
from zett.plan.shapes import How, Part, Shapes, base_of
from zett.recipes import language_model_plan

check_config = language_model_plan.check_config


def check_original(config: Config) -> None:
    """UserError if the models cannot be compared as the config says."""
    for name in (config.base, str(config.start)):
        base = base_of(name, hf_config_of(name))
        check_taught(config.loss, base.name, base.config)


def shapes_of(config: Config) -> Shapes:
    """Those of training the rows, or the body, too; what changes of low rank take in addition to the rows is not counted.

    UserError if the model cannot be trained with this config.
    """
    train = dataclasses.replace(config.train, trained="all" if config.train.body else "table")
    untaught = dataclasses.replace(config, recipe="lm", train=train,
                                   loss=dataclasses.replace(config.loss, token=1.0, hidden=0.0, chunk=0.0))  # fmt: skip
    shapes = language_model_plan.shapes_of(untaught)
    if not config.loss.hidden and not config.loss.chunk:
        return shapes
    check_original(config)
    original = base_of(config.base, hf_config_of(config.base))
    positions = config.data.batch_size * config.data.length
    work = shapes.work.taught(config.loss, shapes.base.config, positions=positions, rows=original.table["input"][0])
    body = BodyStep(config, shapes.base, trains=config.train.body)

    def parts(sizes: tuple[int, int, int], how: How) -> list[Part]:
        columns = original.table["input"][0], original.columns
        mesh = abstract_mesh(sizes)
        rows = Part("rows of the original", sharded_rows(columns, mesh))
        own = [Part("body of the original", body.bytes(mesh))] if config.train.body else []
        return [*shapes.parts(sizes, how), rows, *own, *body.taught(sizes)]

    return dataclasses.replace(shapes, work=work, parts=parts)
