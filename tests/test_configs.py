"""The configs of real runs: whole, planned without weights or a network, and what their first lines promise."""

import re
from pathlib import Path

import pytest

from zett.config import Config
from zett.config_file import load_config
from zett.plan.report import GIB, plan
from zett.recipes import RECIPES, recipe_class

FOLDER = Path(__file__).parents[1] / "configs"
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
# The hardware that a config names: devices, how many, and what stands in for the result of an earlier run.
HARDWARE = {
    "gpt2": ("h100", 1, {}),
    "xlmr": ("h100", 1, {}),
    "smollm2": ("h100", 1, {}),
    "tinyllama": ("h100", 1, {}),
    "gemma3": ("h100", 1, {}),
    "llama3": ("h100", 8, {}),
    "qwen3": ("h100", 8, {}),
    "mistral": ("tpu-v4", 16, {}),
    "mistral_multilingual": ("tpu-v4", 16, {"start": "None"}),
    "n_shot": ("h100", 1, {"start": TINYLLAMA}),
}


def test_every_config_is_here():
    assert {path.stem for path in FOLDER.glob("*.py")} == HARDWARE.keys() | {"pico", "pico_base"}


@pytest.mark.parametrize("name", sorted(HARDWARE))
def test_a_config_fits_its_hardware_as_it_says(name):
    device, number, changes = HARDWARE[name]
    file = FOLDER / f"{name}.py"
    report = plan(load_config(str(file), changes.items()), devices=number, device=device)
    assert not report["fault"]
    (found,) = report["devices"]
    assert found["fits"]
    text = file.read_text()
    assert f"python train.py --config configs/{name}.py --workdir runs/{name}" in text
    gigabytes = re.search(r"(\d+) GiB", text)
    seconds = re.search(r"([\d.]+) s a step", text)
    assert int(gigabytes[1]) == pytest.approx(report["memory_total"] / GIB, rel=0.05, abs=0.6)
    assert float(seconds[1]) == pytest.approx(found["step_seconds"], rel=0.05, abs=0.006)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_config_sets_what_its_recipe_reads(path):
    spec: dict = {}
    exec(compile(path.read_text(), path, "exec"), spec)
    values = spec["get_config"]().to_dict()
    config = load_config(str(path))
    unused = {section for name in RECIPES for section in recipe_class(name).sections} - recipe_class(config.recipe).sections
    if config.recipe == "lm" and config.start:
        unused |= {"tokenizer", "model"}
    assert unused and not values.keys() & unused
    assert config != Config()


def test_the_multilingual_configs_share_their_languages():
    xlmr, mistral = (load_config(str(FOLDER / f"{name}.py")) for name in ("xlmr", "mistral_multilingual"))
    assert xlmr.sampler.texts == mistral.sampler.texts and xlmr.sampler.text_weights == mistral.sampler.text_weights
    assert len(set(xlmr.hypernet.languages)) == len(set(xlmr.sampler.texts)) == 26
    # It goes on from the hypernetwork of the other config, which knows no languages.
    before = load_config(str(FOLDER / "mistral.py")).hypernet
    assert {**vars(mistral.hypernet), "languages": ()} == vars(before)
