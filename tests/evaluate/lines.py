"""The text of tests of evaluation."""

from pathlib import Path

import numpy as np

LINES = [
    "def area(width, height):\n",
    '    """Return the area of a rectangle, which is the product of its sides."""\n',
    "    return width * height\n",
    "for name in sorted(table):  # über 1_000 Zeilen, naïve\n",
    "    print(name, table[name], sep=': ')\n",
    "\n",
    "class Rectangle(Shape):\n",
    "    sides: int = 4\n",
]


def write_corpus(folder: Path) -> str:
    """A folder with train.txt and valid.txt: the same lines in other orders."""
    for seed, split in enumerate(("train", "valid")):
        rng = np.random.default_rng(seed)
        (folder / f"{split}.txt").write_text("".join(LINES[i] for i in rng.integers(len(LINES), size=800)))
    return str(folder)
