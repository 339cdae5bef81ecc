"""Compiled loops over the bytes of tokens and texts.

Strings are packed: all bytes are in one array, string t at `starts[t]:starts[t + 1]`. Pieces are returned in the same way: the
ids of all strings in one array, and the number of pieces of each string.
"""
