"""Memory and time that a run takes, from shapes alone: `train.py --dry_run`. Recipes say what a step holds and computes."""
