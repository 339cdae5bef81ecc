"""Changing the vocabulary of a model while its tokens stay what they are: trimming it, adding tokens to it."""
