"""Base models in shapes: parameters as published."""

import math

import pytest
from tiny import base_folder

from zett.errors import UserError
from zett.lms.known import KNOWN, hf_config_of
from zett.plan.shapes import base_of

PUBLISHED = {
    "openai-community/gpt2": 124_439_808,
    "FacebookAI/xlm-roberta-base": 278_295_186,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": 1_100_048_384,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "google/gemma-3-1b-pt": 999_885_952,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_have_the_published_numbers_of_parameters(name):
    base = base_of(name, hf_config_of(name))
    assert sum(map(math.prod, [*base.body.values(), *base.table.values()])) == PUBLISHED[name]


def test_a_local_model_has_the_shape_of_its_config(tmp_path):
    base_folder(tmp_path / "base")
    assert hf_config_of(str(tmp_path / "base"))["hidden_size"] == 16
    assert hf_config_of("pico")["model_type"] == "llama"
    with pytest.raises(UserError, match=r"nobody/model.*mistralai/Mistral-7B-v0\.1"):
        hf_config_of("nobody/model")
