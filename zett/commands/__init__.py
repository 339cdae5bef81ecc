"""The subcommands of `zett`: one file each, with a description, examples, `arguments(parser)` and `run(args)`.

Only here does anything know how arguments are written on the command line. Modules of this room import what is light; the rest
is imported in `run`, when the arguments are known to be right.
"""

# Name -> what it does, in the order of the help.
COMMANDS = {
    "quickstart": "train a hypernetwork for two minutes and show how good it is",
    "smollm2": "a real model with the tokenizers of others: what it loses, and what it writes",
    "transfer": "base model + tokenizer -> a model folder that any Hugging Face client loads",
    "refine": "train a transferred model's rows, or all of it, for some minutes, against the model that it was made from",
    "chats": "conversations that a chat model writes by itself, for refine and train",
    "trim": "a model with fewer tokens: those that a text uses, with every row as it was",
    "add-tokens": "a model with more tokens, which its tokenizer really uses, and every old row as it was",
    "eval": "how much a model loses with tokenizers it was not trained with, where, and whether its answers stay the same",
    "inspect": "what changes with another tokenizer, before anything is done; or which rows of a model stand out",
    "train": "train a hypernetwork, a transferred model further, or a small base model",
    "export": "a published hypernetwork, or a run's checkpoint -> the form that zett releases",
    "methods": "the ways to get a table, with what each needs",
}
