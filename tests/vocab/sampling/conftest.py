"""Texts to draw tokenizers from, and a cache of its own for each file of tests."""

import pytest
from samplers import HINDI
from vocabularies import TEXTS

from zett.data.documents import Documents
from zett.data.sources import open_text


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZETT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("text")
    for i, content in enumerate([*TEXTS, HINDI * 30]):
        (folder / f"{i}.txt").write_text(content)
        (folder / f"{i}b.txt").write_text(content[::-1][:2000])
    return str(folder)


@pytest.fixture(scope="module")
def text(folder) -> Documents:
    return open_text(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Documents:
    """A source without a Latin letter, of a hundredth of the size."""
    path = tmp_path_factory.mktemp("other") / "hindi.txt"
    path.write_text("\n".join([HINDI, HINDI[::-1]] * 20))
    return open_text(str(path))
