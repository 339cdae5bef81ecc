"""Everything that knows about tokenizers: token bytes, decomposition into source pieces, special tokens, sampling."""

from zett.vocab.vocabulary import ROLES, SurfaceForms, Vocabulary, load_tokenizer, surface_forms

__all__ = ["ROLES", "SurfaceForms", "Vocabulary", "load_tokenizer", "surface_forms"]
