"""How words are cut, as regular expressions."""

# How new tokenizers cut words. It is cl100k's regex, except that combining marks belong to their word: without \p{M}, words in
# Devanagari and other scripts would be cut into letters.
WORD_REGEX = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# The same for SentencePiece's kinds of tokenizer, which write spaces as "▁". A run of "▁" belongs to what follows it. Letters,
# digits and signs are cut apart, as SentencePiece's own trainer does with scripts.
PIECE_REGEX = r"▁*[\p{L}\p{M}]+|▁*\p{N}{1,3}|▁*[^▁\s\p{L}\p{M}\p{N}]+|▁+|\s+"

# Tokenizers in use cut words in several ways, so drawn ones do, too: as cl100k; as GPT-2 (numbers of any length); with single
# digits; as SentencePiece ("▁" with what follows); as BERT (words and single signs), but with the spaces kept; and where tokens
# may be several words, words joined over single spaces and apostrophes (as BoundlessBPE), or sentences without their digits (as
# SuperBPE, which goes on over their ends, too).
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT_REGEX = WORD_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
BERT_REGEX = r" ?[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"
_OTHERS = r"|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SUPERWORD_REGEX = r" ?[\p{L}\p{M}]+(?:[ '’][\p{L}\p{M}]+)*" + _OTHERS
SENTENCE_REGEX = r"[^\r\n\p{N}.!?]+[.!?]*|[.!?]+|\p{N}{1,3}|[\r\n]+"
STYLES = (WORD_REGEX, GPT2_REGEX, DIGIT_REGEX, PIECE_REGEX, BERT_REGEX, SUPERWORD_REGEX, SENTENCE_REGEX)
WORDS, GPT2, DIGITS, PIECES, BERT, SUPERWORDS, SENTENCES = range(7)
WITHIN = {SUPERWORDS: r" ?[\p{L}\p{M}]+" + _OTHERS, SENTENCES: WORD_REGEX}  # how the words are cut that these join
