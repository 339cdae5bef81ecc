"""Training-free methods: functions `(source_table, source, target, forms, *, seed=0) -> EmbeddingTable`, and their registry.

All of them keep the rows of shared tokens (`forms.same`), and treat input rows, untied output rows and biases alike.
A new method is one function in one file and one line here.
"""

from zett.methods.fvt import fvt
from zett.methods.mean import mean
from zett.methods.random import random

METHODS = {"random": random, "mean": mean, "fvt": fvt}
