"""What a family of base models is, which families there are, and which one a config.json belongs to.

A family is one module that ends with `FAMILY = Family(...)`, and one line in FAMILIES.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from zett.errors import UserError
from zett.lms.checks import check_config, check_heads, quantised
from zett.lms.config import BodyConfig

TRANSPOSE = "transpose"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One tensor, or one per layer where `key` holds `{i}`.

    key: Hugging Face name. path: dotted path in the body. transform: None or TRANSPOSE (torch stores `[out, in]`).
    when: name of a boolean field of the family's config that says whether the tensor exists.
    spec: partition of one layer's parameter, in our layout, over the mesh axes "fsdp" and "tensor"; (): not partitioned.
    first: number of the first layer that has the tensor.
    """

    key: str
    path: str
    transform: str | None = None
    when: str | None = None
    spec: tuple = ()
    first: int = 0


# Partition specs of kernels `[in, out]`: WIDEN for a layer from the model width into attention or the feed-forward network,
# NARROW for one back to the model width.
WIDEN, NARROW = ("fsdp", "tensor"), ("tensor", "fsdp")


def dense_rows(key: str, path: str, spec: tuple, *, transform: str | None = TRANSPOSE, bias: str | bool = True) -> list[Weight]:
    """Rows of a `Linear`; bias: whether it has one, or the name of the config's field that says so."""
    rows = [Weight(f"{key}.weight", f"{path}.kernel", transform, None, spec)]
    if bias:
        when = bias if isinstance(bias, str) else None
        rows.append(Weight(f"{key}.bias", f"{path}.bias", None, when, ("tensor",) if spec == WIDEN else ()))
    return rows


def norm_rows(key: str, path: str, *, bias: str | bool = True) -> list[Weight]:
    """Rows of a `LayerNorm`; bias as for `dense_rows`."""
    rows = [Weight(f"{key}.weight", f"{path}.scale")]
    return rows + ([Weight(f"{key}.bias", f"{path}.bias", when=bias if isinstance(bias, str) else None)] if bias else [])


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """What one architecture consists of. Names of tensors are those in Hugging Face's files.

    model_types: of config.json. Body: a module `(config, dtype=, remat=, rngs=)` that is all of a model but its vocabulary.
    weights: all tensors of the body. input_rows, output_rows, bias: names of the vocabulary's tensors. A tied model's files may
    lack output_rows. bias is None if the family's output has none.
    copies: `{name of the copy: name}`, tensors that some files hold twice (`decoder.weight`, a copy of the input rows).
    prefix: beginning of the body's names ("bert."), which files of a model without head may leave out.
    renamed: `{pattern: replacement}` for other spellings of names that some files have (`LayerNorm.gamma`).
    head: beginning of the names of an optional head's tensors ("cls.predictions."). If the files have none of them, the
    config's field `head` is false, and there are no output rows and no bias. None: the head is not optional.
    ignored: patterns of tensors that files may have and that nothing here needs, such as buffers and poolers.
    tied_default: whether the output rows are the input rows if config.json does not say; Transformers leaves defaults out.
    follow_padding: if positions count from the padding id, a function of (table of positions, old id, new id or None) that
    returns the table for the new id, and the fields of config.json that change with it. None: they do not.
    """

    model_types: tuple[str, ...]
    Config: type[BodyConfig]
    Body: type
    weights: tuple[Weight, ...]
    input_rows: str
    output_rows: str
    bias: str | None = None
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    head: str | None = None
    ignored: tuple[str, ...] = ()
    tied_default: bool = False
    follow_padding: Callable[[np.ndarray, int, int | None], tuple[np.ndarray, dict]] | None = None

    def rows(self, config: BodyConfig) -> list[Weight]:
        """Those of `weights` that a body of this config has."""
        return [row for row in self.weights if row.when is None or getattr(config, row.when)]


# ---------------------------------------------------------------------------------------------------------- registry

# model_type of a config.json -> module with FAMILY, imported when a model of that family is read.
FAMILIES = {
    "bert": "zett.lms.bert",
    "gemma": "zett.lms.gemma",
    "gemma2": "zett.lms.gemma2",
    "gemma3_text": "zett.lms.gemma3",
    "gpt2": "zett.lms.gpt2",
    "gpt_neox": "zett.lms.gpt_neox",
    "llama": "zett.lms.llama",
    "mistral": "zett.lms.mistral",
    "modernbert": "zett.lms.modernbert",
    "olmo2": "zett.lms.olmo2",
    "phi3": "zett.lms.phi3",
    "qwen2": "zett.lms.qwen2",
    "qwen3": "zett.lms.qwen3",
    **dict.fromkeys(("roberta", "xlm-roberta"), "zett.lms.roberta"),
    "smollm3": "zett.lms.smollm3",
    "starcoder2": "zett.lms.starcoder2",
}
# Why a model is refused, and the model types that are refused for it.
REFUSED = {
    "a mixture of experts": (
        "dbrx deepseek_v2 deepseek_v3 ernie4_5_moe glm4_moe gpt_oss granitemoe granitemoeshared jetmoe llama4_text minimax "
        "mixtral olmoe phimoe qwen2_moe qwen3_moe qwen3_next switch_transformers"
    ).split(),
    "multimodal": (
        "aya_vision gemma3 gemma3n gemma4 idefics2 idefics3 internvl llama4 llava llava_next llava_onevision mistral3 mllama "
        "paligemma phi4_multimodal pixtral qwen2_5_omni qwen2_5_vl qwen2_vl qwen3_vl qwen3_vl_moe smolvlm"
    ).split(),
}


class Unported(UserError):
    """A sound model whose architecture, or a setting of it, is not computed here."""


def family_of(hf_config: dict) -> Family:
    """The family of a config.json whose model_type is one of FAMILIES."""
    return _family(hf_config["model_type"])


@functools.cache
def _family(model_type: str) -> Family:
    return importlib.import_module(FAMILIES[model_type]).FAMILY


def is_tied(hf_config: dict) -> bool:
    """Whether the output rows are the input rows, by the family's default if the config does not say."""
    known = hf_config.get("model_type") in FAMILIES
    return bool(hf_config.get("tie_word_embeddings", known and family_of(hf_config).tied_default))


def read_family(hf_config: dict, where: Path) -> tuple[Family, BodyConfig]:
    """The family and the config of a config.json at `where`. Unported if it is not computed here, else UserError."""
    model_type = hf_config.get("model_type")
    check_config(hf_config, where, ported=isinstance(model_type, str) and model_type in FAMILIES)
    method = quantised(hf_config, where)
    if method is not None:
        raise Unported(
            f"{where}: the weights are quantised with {method}, which is not computed here; give the model that they were made "
            "from (a transfer that measures nothing takes this one, too)"
        )
    reason = next((reason for reason, refused in REFUSED.items() if model_type in refused), None)
    if reason:
        raise Unported(f"{where}: model_type is {model_type!r}, {reason}, which is not computed here")
    if model_type not in FAMILIES:
        raise Unported(f"{where}: model_type is {model_type!r}; supported: {', '.join(sorted(FAMILIES))}")
    family = family_of(hf_config)
    try:
        config = family.Config.from_hf(hf_config)
        hf_config["vocab_size"] + 0
        check_heads(config, where)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{where} has no field {error}; a model of type {model_type!r} needs it") from error
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error
    except ValueError as error:
        raise Unported(f"{where}: {error}") from error
    return family, config
