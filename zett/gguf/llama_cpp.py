"""A model folder with an edited vocabulary as a GGUF file, by llama.cpp's own converter:

    python -m zett.gguf.llama_cpp LLAMA_CPP FOLDER OUT.gguf [--outtype f32 ...]

LLAMA_CPP: the folder with convert_hf_to_gguf.py, such as vendor/llama.cpp in the source of llama-cpp-python. The converter
knows how a byte-level tokenizer cuts words by a hash of the ids of one text. Trimmed and extended vocabularies have other ids,
so that it stops with "BPE pre-tokenizer was not recognized"; here it is told the name, which follows from tokenizer.json. Of a
SentencePiece BPE without its tokenizer.model it writes one score for all tokens, and llama.cpp merges by scores; here tokens
get scores by their merges.
"""

import json
import runpy
import sys
from pathlib import Path

from zett.gguf.pretokenisers import name_of
from zett.surgery.keep import pairs_of


def convert(llama_cpp: Path, folder: Path, *arguments: str) -> None:
    """Run the converter in this process. arguments: of the converter, besides the folder."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    sys.path[:0] = [str(llama_cpp / "gguf-py"), str(llama_cpp)]
    from conversion.base import TextModel
    from gguf.vocab import LlamaHfVocab

    known = TextModel.get_vocab_base_pre

    def name(self, tokenizer) -> str:
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            if (found := name_of(spec)) is None:
                raise
            return found

    scores = merge_scores(spec)
    setattr(TextModel, "get_vocab_base_pre", name)  # noqa: B010
    setattr(LlamaHfVocab, "get_token_score", lambda self, token_id: scores.get(token_id, -1000.0))  # noqa: B010
    sys.argv = ["convert_hf_to_gguf.py", str(folder), *arguments]
    runpy.run_path(str(llama_cpp / "convert_hf_to_gguf.py"), run_name="__main__")


def merge_scores(spec: dict) -> dict[int, float]:
    """By id, how early a BPE of a tokenizer.json, read as `spec`, merges a token: -1 for the first, as SentencePiece counts."""
    if spec["model"]["type"] != "BPE":
        return {}
    vocab = spec["model"]["vocab"]
    scores: dict[int, float] = {}
    for rank, (a, b) in enumerate(pairs_of(spec["model"]), 1):
        scores.setdefault(vocab[a + b], -float(rank))
    return scores


if __name__ == "__main__":
    if len(sys.argv) < 4 or not (Path(sys.argv[1]) / "convert_hf_to_gguf.py").is_file():
        print(f"zett: error: give LLAMA_CPP, a folder with convert_hf_to_gguf.py, and two names\n\n{__doc__}", file=sys.stderr)
        sys.exit(2)
    convert(Path(sys.argv[1]), Path(sys.argv[2]), "--outfile", sys.argv[3], *sys.argv[4:])
