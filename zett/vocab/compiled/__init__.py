"""Compiled loops over the bytes of tokens and texts.

Strings come packed: all bytes in one array, string t at `starts[t]:starts[t + 1]`. Pieces go out likewise: the ids of all
strings in one array, and the number of pieces of each.
"""
