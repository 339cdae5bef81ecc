"""Ids of tokens that a config.json leaves out, since they are those of its class in Transformers."""

import contextlib
import re
from typing import Any

from zett.vocab import Vocabulary

ID_KEY = re.compile(r".+_token_(id|ids|index)|(bos|eos|pad|unk|mask|sep|cls)_index")


def with_defaults(hf_config: dict, vocab: Vocabulary) -> dict:
    """A config.json with the ids that it leaves out since they are those of its class; roles first as the tokenizer has them.

    Without them, the class would put in the ids of before.
    """
    full = _filled(hf_config, _defaults(hf_config.get("model_type")), len(vocab))
    for role in ("bos", "eos", "pad"):
        key = f"{role}_token_id"
        if key not in hf_config and not any(key in v for v in hf_config.values() if isinstance(v, dict)):
            full[key] = vocab.roles.get(role, full.get(key))
    return full


def _defaults(model_type: Any) -> dict:
    """The ids in the config that Transformers makes of nothing; {} for an architecture that it does not know."""
    from transformers import CONFIG_MAPPING

    with contextlib.suppress(Exception):  # some classes cannot be made of nothing
        return CONFIG_MAPPING[model_type]().to_dict()
    return {}


def _filled(settings: dict, usual: dict, size: int) -> dict:
    full = dict(settings)
    for key, value in usual.items():
        if isinstance(value, dict) and isinstance(full.get(key), dict):
            full[key] = _filled(full[key], value, size)
        elif key not in full and ID_KEY.fullmatch(key) and isinstance(value, int) and 0 <= value < size:
            full[key] = value
    return full
