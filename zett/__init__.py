"""Give a language model another tokenizer, zero-shot: a hypernetwork reads a vocabulary and writes its embedding tables.

Everything heavy is imported on first use: `import zett` loads neither JAX nor Transformers and touches no device.

    transfer         base model + tokenizer -> a model folder that any Hugging Face client loads
    refine           a transferred model, trained for some minutes against the one that it was made from
    write_chats      conversations that a chat model writes by itself, to train in its turns
    trim             a model with fewer tokens: those that a text uses, with every row as it was
    add_tokens       a model with more tokens, which its tokenizer really uses
    preview_trim     what trim would do, and preview_add_tokens what add_tokens would; nothing is written
    evaluate         how much a model loses with tokenizers that it was not trained with, by method
    evaluate_drafts  how much of what a draft model writes ahead a big model keeps (speculative decoding)
    evaluate_dynamic how much shorter texts become in tokens merged for a batch, and what the model loses
    merge_texts      a batch of texts in fewer tokens; merged_inputs and generate_merged read them, with rows made on the fly
    Candidates       a great many tokens to write from, by an approximate index; write_from writes
    generate         what a model writes after a prompt, whatever vocabulary it has
    inspect          what changes with another tokenizer, before anything is trained or transferred
    load_hypernet    a trained hypernetwork; its rows(tokenizer) are what transfer writes, as arrays
    load_hydra       one body with the tables and tokenizers of several transferred models: read in one, write in another
    load_base_model  a model with its embedding table and its tokenizer's vocabulary
    load_tokenizer   the vocabulary of any Hugging Face tokenizer: the bytes of every token
    EmbeddingTable   input and output rows, and output bias
    UserError        what all of them raise for bad input
"""

import importlib
import sys
import types

__version__ = "0.1.0"

# Public name -> the module that defines it.
_PUBLIC = {
    "EmbeddingTable": "zett.table",
    "Candidates": "zett.dynamic.candidates",
    "UserError": "zett.errors",
    "add_tokens": "zett.surgery.add_tokens",
    "evaluate": "zett.evaluate.evaluate",
    "evaluate_drafts": "zett.evaluate.drafts",
    "evaluate_dynamic": "zett.evaluate.dynamic",
    "generate": "zett.generate",
    "generate_merged": "zett.dynamic.reading",
    "inspect": "zett.inspect.compare",
    "load_base_model": "zett.lms.base",
    "load_hydra": "zett.hydra",
    "load_hypernet": "zett.hypernet.release",
    "load_tokenizer": "zett.vocab.load",
    "merge_texts": "zett.dynamic.reading",
    "merged_inputs": "zett.dynamic.reading",
    "preview_add_tokens": "zett.surgery.add_tokens",
    "preview_trim": "zett.surgery.trim",
    "refine": "zett.refine",
    "transfer": "zett.transfer",
    "trim": "zett.surgery.trim",
    "write_chats": "zett.chats",
    "write_from": "zett.dynamic.candidates",
}


__all__ = list(_PUBLIC)


class _Package(types.ModuleType):
    def __setattr__(self, name, value):
        # Importing the submodule `zett.transfer` would put it in the place of the function `zett.transfer`.
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zett' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted([*__all__, "__all__", "__doc__", "__version__"])
