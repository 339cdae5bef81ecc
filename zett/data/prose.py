"""The English that comes with Python: docstrings, comments, descriptions of packages."""

import re
import sysconfig
from pathlib import Path

from zett.data.documents import Files, held_out
from zett.data.python import python_sources, text_or_none

# Matches all triple-quoted strings, so that the end of one is never taken for the start of the next. The group "head" matches
# if the string is the first thing on its line, as a docstring is.
TRIPLE_QUOTED = re.compile(r'''(?P<head>^[ \t]*[rRuU]?)?(?P<quote>"""|\'\'\')(?P<text>.*?)(?P=quote)''', re.S | re.M)
COMMENT_BLOCK = re.compile(r"(?:^[ \t]*#[ \t].*\n){2,}", re.MULTILINE)
COMMON_WORDS = frozenset("a an and are as at be by can for from has if in is it not of or that the this to was which".split())


def english_prose(split: str, package_bytes: int = 4_000_000) -> Files:
    """The English that comes with Python: docstrings and comments of `python_sources`, package descriptions, other text files.

    One document a file, cleaned of code, tables and markup as far as simple rules go; some documents are empty.
    """
    items = [(_prose_of_source, path) for _, path in python_sources(split, package_bytes).items]
    root = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(root.rglob("*")):
        if path.name == "METADATA" or path.suffix in (".txt", ".rst", ".md"):
            if held_out(path.relative_to(root).as_posix()) == (split == "valid") and path.is_file():
                items.append((_prose_of_text, path))
    return Files(f"prose:{split}", tuple(items))


def _prose_of_source(path: Path) -> str:
    text = text_or_none(path) or ""
    blocks = [m["text"] for m in TRIPLE_QUOTED.finditer(text) if m["head"] is not None]
    blocks += [re.sub(r"^[ \t]*#+ ?", "", block, flags=re.MULTILINE) for block in COMMENT_BLOCK.findall(text)]
    return "\n\n".join(filter(None, map(prose_paragraphs, blocks)))


def _prose_of_text(path: Path) -> str:
    text = text_or_none(path)
    return prose_paragraphs(text) if text else ""


def prose_paragraphs(text: str) -> str:
    """The paragraphs of `text` that read like English sentences, each on one line, separated by blank lines."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return "\n\n".join(p for p in paragraphs if _is_prose(p))


def _is_prose(paragraph: str) -> bool:
    words = paragraph.split()
    if len(words) < 8 or paragraph[-1] not in ".?!:" or re.search(r">>>|::|[{}<>|=_`\\]|\w\(", paragraph):
        return False
    if "License" in paragraph:  # the same licence header is in thousands of files, and would dominate the statistics
        return False
    plain = sum(c.isalpha() or c in " ,.'" for c in paragraph)
    common = sum(w.lower() in COMMON_WORDS for w in words)
    return plain >= 0.95 * len(paragraph) and common >= 0.2 * len(words)
