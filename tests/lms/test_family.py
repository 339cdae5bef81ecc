"""What a family says of itself, and the one place where families are registered."""

import pytest

from zett.lms.config import BodyConfig
from zett.lms.family import FAMILIES, REFUSED, family_of


def test_each_family_is_registered_under_its_own_model_types():
    registered: dict = {}
    for kind in FAMILIES:
        registered.setdefault(family_of({"model_type": kind}), []).append(kind)
    assert all(family.model_types == tuple(kinds) for family, kinds in registered.items())
    assert not set(FAMILIES) & {kind for kinds in REFUSED.values() for kind in kinds}


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_config_answers_what_others_ask_of_it(kind):
    family = family_of({"model_type": kind})
    config = family.Config()
    assert isinstance(config, BodyConfig) and config.causal == (family.head is None) and config.head
    assert len(config.layer_windows) == config.num_layers and config.room + config.first_position == config.max_positions
    assert config.head_dim > 0 and config.output_bias and config.logit_softcap is None
    assert (family.follow_padding is not None) == ("roberta" in kind)
