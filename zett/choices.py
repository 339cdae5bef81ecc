"""Choices that the commands' help lists. They are apart, so that --help imports nothing heavy."""

# Kinds of tokenizer that can be trained; see zett/vocab/train.py.
KINDS = ("bpe", "unigram", "sentencepiece-bpe", "wordpiece")

# How a released hypernetwork's parameters are stored; see zett/hypernet/quantised.py.
STORED = ("float32", "bfloat16", "int8")

# What becomes of special tokens in a transfer; see zett/vocab/adapt.py.
MODES = {
    "keep-target": "the tokenizer's files exactly as given",
    "map-to-source": "the base model's special tokens, what it puts around a text, and its chat template: paired tokens are "
    "renamed, the rest is appended as new ids; prompts made for the base model keep working",
    "add-missing": "the base model's special tokens that have no counterpart are appended as new ids, and what a chat template "
    "that is taken over from it spells",
}
