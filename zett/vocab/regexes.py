"""How words are cut, as regular expressions."""

# One regex cuts words everywhere in this project. Like cl100k's, but combining marks belong to their word: without \p{M}
# Devanagari and other scripts are cut into letters.
WORD_REGEX = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# The same for SentencePiece-style kinds, whose spaces are marks: runs of marks go with what follows, as letters, digits and
# signs stay apart as SentencePiece's own trainer keeps scripts apart.
PIECE_REGEX = r"▁*[\p{L}\p{M}]+|▁*\p{N}{1,3}|▁*[^▁\s\p{L}\p{M}\p{N}]+|▁+|\s+"

# Tokenizers in use cut words in several ways: like cl100k, like GPT-2 (digits with their word), with single digits; runs of "▁"
# with what follows, as SentencePiece; words and single signs, as BERT, whose spaces are kept here.
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT_REGEX = WORD_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
BERT_REGEX = r" ?[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"
STYLES = (WORD_REGEX, GPT2_REGEX, DIGIT_REGEX, PIECE_REGEX, BERT_REGEX)
WORDS, GPT2, DIGITS, PIECES, BERT = range(5)
