"""Everything that knows about tokenizers: token bytes, decomposition into source pieces, special tokens, sampling."""

from zett.vocab.forms import SurfaceForms, surface_forms
from zett.vocab.load import load_tokenizer
from zett.vocab.pairing import ROLES
from zett.vocab.vocabulary import Vocabulary

__all__ = ["ROLES", "SurfaceForms", "Vocabulary", "load_tokenizer", "surface_forms"]
