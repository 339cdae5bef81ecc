"""GGUF files (llama.cpp's format), read into ordinary Hugging Face folders in the cache."""

from zett.gguf.convert import convert, convert_tokenizer, find_gguf

__all__ = ["convert", "convert_tokenizer", "find_gguf"]
