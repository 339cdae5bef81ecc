"""How good a result is: evaluation tasks, targets, methods compared on the same text, reports."""
