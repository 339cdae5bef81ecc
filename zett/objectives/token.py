"""Predicting text, which is another thing for an encoder than for a causal language model."""

from zett.objectives.likelihood import Likelihood
from zett.objectives.masked_token import MaskedToken
from zett.objectives.next_token import NextToken
from zett.objectives.setting import Setting


def token(setting: Setting) -> Likelihood:
    """The next token, or of an encoder the tokens that are hidden. The base model decides which, here and nowhere else."""
    return NextToken(setting) if setting.base.config.causal else MaskedToken(setting)
