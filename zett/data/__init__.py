"""Text: where documents come from, and what a step of training reads of them."""
