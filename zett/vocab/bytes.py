"""Token bytes."""
def token_bytes(tokenizer):
    import tokenizers
    from zett.vocab.alphabet import CHAR_TO_BYTE
    special = {i for i in tokenizer.get_added_tokens_decoder()}
    out=[b""]*tokenizer.get_vocab_size()
    for t,i in tokenizer.get_vocab().items():
        if i not in special: out[i]=bytes(CHAR_TO_BYTE[c] for c in t)
    return out
