"""What a chat model answers."""

import dataclasses

from zett.generate import chat_prompt, generate
from zett.lms.base import BaseModel


@dataclasses.dataclass(frozen=True)
class Sample:
    """name: of the model."""

    name: str
    text: str


def sample(model: BaseModel, name: str, prompt: str, tokens: int) -> Sample:
    """The most probable answer to a user's `prompt`, of at most `tokens` tokens."""
    text = generate(model, chat_prompt(model.vocab, [{"role": "user", "content": prompt}]), max_tokens=tokens)
    return Sample(name, text.strip())
