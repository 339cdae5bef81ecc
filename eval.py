"""Evaluate a base model with unseen tokenizers: `python eval.py`, or `python eval.py --help`."""

from zett.cli import run_script

if __name__ == "__main__":
    run_script("eval", prog="eval.py")
