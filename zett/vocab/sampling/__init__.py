"""Tokenizers to train a hypernetwork on, drawn at random."""
