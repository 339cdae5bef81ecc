"""Vectors of a text's words, for the methods that need them: fastText's CBOW by gensim, written in word2vec's text format.

    python -m benchmarks.word_vectors --text python --text-bytes 5000000 --output vectors.txt

gensim need not be in zett's own environment (`pip install --no-deps --target DIR gensim smart_open wrapt`, PYTHONPATH=DIR).
"""

import argparse
import re
import time
from pathlib import Path

import numpy as np

from benchmarks.common import SEED
from zett.data.sources import open_text

WORD = re.compile(r"\w+|[^\w\s]+")
LINE = 1000  # words of a sentence, at most


def sentences(text: str, most: int) -> list[list[str]]:
    """Documents of a source's training split in random order, until they have `most` bytes, in words."""
    documents, found, read = open_text(text), [], 0
    for i in np.random.default_rng(SEED).permutation(len(documents)):
        document = documents[int(i)]
        words = WORD.findall(document)
        found += [words[at : at + LINE] for at in range(0, len(words), LINE)]
        read += len(document.encode("utf-8", "replace"))
        if read >= most:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="python")
    parser.add_argument("--text-bytes", type=int, default=5_000_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    from gensim.models import FastText

    cpu = time.process_time()
    texts = sentences(args.text, args.text_bytes)
    # In one thread, so that the same seed gives the same vectors.
    model = FastText(vector_size=args.size, min_count=args.least, negative=10, workers=1, seed=SEED)
    model.build_vocab(texts)
    model.train(texts, total_examples=len(texts), epochs=args.epochs)
    model.wv.save_word2vec_format(str(args.output))
    print(f"{len(model.wv):,} words in {args.output}, {time.process_time() - cpu:.0f} s of processors")


if __name__ == "__main__":
    main()
