"""Evaluate a base model with unseen tokenizers: `python eval.py`, or `python eval.py --help`."""

from zett.cli import eval_main

if __name__ == "__main__":
    eval_main()
