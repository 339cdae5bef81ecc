"""The loop that trains what a recipe says, in the folder of a run."""
