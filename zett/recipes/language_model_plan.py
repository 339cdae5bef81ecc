"""The recipe "lm" in shapes: whether a config is right, and what a step holds and computes."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from zett.config import Config
from zett.errors import UserError
from zett.lms.known import hf_config_of
from zett.lms.weights import partition_specs
from zett.plan.flops import StepFlops, body_step
from zett.plan.memory import BodyStep, abstract_mesh, array, averaged, trained_bytes
from zett.plan.shapes import BODY, UPDATE, BaseShapes, Checks, How, Part, Shapes, base_of
from zett.plan.time import Cost, optimizer_cost


def check_config(config: Config, checks: Checks) -> None:
    """Note what is wrong with the texts that the run reads."""
    checks.texts(config.data.text, config.data.valid_text)
    checks.chats(config.data.chats)


def _base(config: Config) -> BaseShapes:
    if config.start is not None:
        base = base_of(config.start, hf_config_of(config.start))
        apart = {"output": base.table["input"]} if config.train.untie else {}
        return dataclasses.replace(base, table=apart | base.table)
    m = config.model
    return base_of(m.name, {
        "model_type": "llama", "vocab_size": config.tokenizer.vocab_size, "hidden_size": m.hidden_size,
        "intermediate_size": m.intermediate_size, "num_hidden_layers": m.num_layers, "num_attention_heads": m.num_heads,
        "num_key_value_heads": m.num_kv_heads, "max_position_embeddings": 2048, "tie_word_embeddings": m.tied,
    })  # fmt: skip


def shapes_of(config: Config) -> Shapes:
    """UserError if the base model cannot be trained with this config."""
    base = _base(config)
    if not base.config.causal:
        raise UserError(f"{base.name} is a bidirectional encoder, which config.recipe 'lm' cannot train")
    if config.data.length > base.config.room:
        raise UserError(f"config.data.length is {config.data.length}; {base.name} has positions for {base.config.room} tokens")
    trains = config.train.trained == "all"
    body = BodyStep(config, base, trains)
    trained: dict = {name: array(shape) for name, shape in base.table.items()}
    specs = {name: PartitionSpec(*("tensor", "fsdp")[: len(shape)]) for name, shape in base.table.items()}
    if trains:
        trained["body"] = body.params
        specs |= {f"body.{p}": PartitionSpec(*spec) for p, spec in partition_specs(base.family, base.config).items()}
    size = base.table["input"][0]
    work = body_step(
        base.body, base.config, batch=config.data.batch_size, length=config.data.length, rows=size, targets=body.targets,
        trained=trains,
    )  # fmt: skip
    held = trained_bytes(config, trained, specs)
    parts, costs = functools.partial(_parts, body, held), functools.partial(_costs, body, trained, held, work)
    return Shapes(base, trained, specs, size, work, parts, costs)


def _costs(body: BodyStep, trained: dict, held: Callable, work: StepFlops, sizes: tuple[int, int, int], how: How) -> list[Cost]:
    """What each device has to do. held: of `trained_bytes`."""
    parameters, _ = held(sizes)
    matrices = [x.shape for x in jax.tree.leaves(trained) if len(x.shape) > 1]
    update = optimizer_cost(body.config.optim, parameters, matrices, body.config.train.average)
    return [*body.costs(sizes, how, body.base.table["input"][0], work), update]


def _parts(body: BodyStep, held: Callable, sizes: tuple[int, int, int], how: How) -> list[Part]:
    """What each device holds. held: of `trained_bytes`."""
    parameters, moments = held(sizes)
    return [
        *([] if body.trains else [Part("frozen body", body.bytes(abstract_mesh(sizes)))]),
        Part("parameters", parameters),
        Part("moments of the optimizer", moments),
        *averaged(body.config, parameters),
        *body.parts(sizes, how, body.base.table["input"][0]),
        Part("gradient", parameters * (2 if how.microbatches > 1 else 1), (BODY,)),
        Part("gradient and updates", 2 * parameters, (UPDATE,)),
    ]
