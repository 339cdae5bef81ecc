"""Tokens of a batch's own: frequent neighbours merged, read by rows that are made on the fly; many candidates to write from."""
