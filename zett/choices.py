"""Choices that the commands' help lists. They are apart, so that --help imports nothing heavy."""

# Kinds of tokenizer that can be trained; see zett/vocab/train.py.
KINDS = ("bpe", "unigram", "sentencepiece-bpe", "wordpiece", "superword")

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

# From which rows a hypernetwork predicts for a variant of its base model; the first is the default. docs/log.md has what was
# measured; see zett/hypernet/variant.py.
VARIANTS = {
    "variant": "predicted from the variant's rows (best for a fine-tuned one)",
    "base": "predicted from the base's rows (best for a quantised one)",
    "difference": "predicted from the base's rows, plus how the variant's rows have moved from them: the row of a token that "
    "both have, else the mean of its pieces' rows",
}
