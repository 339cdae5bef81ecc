"""Texts that are read once into a folder: whole or not at all, going on after errors."""

import concurrent.futures
import itertools

import numpy as np
import pytest

from zett.data import spool
from zett.data.documents import TextError


class Numbers:
    """Texts "0", "1", ... of 10 bytes; `errors` are raised, each once, before the numbers that are their keys."""

    def __init__(self, state, errors=(), stop=100):
        self.next, self.errors, self.stop = (state or {"next": 0})["next"], dict(errors), stop

    def __iter__(self):
        while self.next < self.stop:
            if error := self.errors.pop(self.next, None):
                raise error
            self.next += 1
            yield f"{self.next - 1:<10}"

    def state(self):
        return {"next": self.next}


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setattr(spool, "MARK_BYTES", 70)
    monkeypatch.setattr(spool, "PAUSES", (0, 0, 0))


def opening(errors=(), **settings):
    """(what opens `Numbers`, the states that it was asked for)."""
    states, left = [], dict(errors)

    def open(state):
        states.append(state)
        texts = Numbers(state, **settings)
        texts.errors = left
        return texts

    return open, states


def documents_in(folder):
    text, ends = (folder / "text").read_bytes(), [0, *np.fromfile(folder / "ends", "<i8")]
    return [text[a:b].decode() for a, b in itertools.pairwise(ends)]


NUMBERS = [f"{i:<10}" for i in range(100)]


def test_a_stream_is_read_once_and_up_to_its_limit(tmp_path):
    open, states = opening(stop=10**9)
    for _ in range(2):
        info = spool.spool(tmp_path / "a", "a", open, 95)
        assert info["documents"] == 10 and documents_in(tmp_path / "a") == NUMBERS[:10]
    assert states == [None]
    (tmp_path / "a" / "text").write_text("short")  # damaged
    spool.spool(tmp_path / "a", "a", open, 95)
    assert states == [None, None] and documents_in(tmp_path / "a") == NUMBERS[:10]


def test_what_the_network_breaks_off_goes_on(tmp_path, marked, capsys):
    errors = {
        10: ConnectionError("reset"),
        30: TimeoutError(),
        31: ConnectionError(),
        32: ConnectionError(),
        90: ConnectionError(),
    }
    open, states = opening(errors)
    info = spool.spool(tmp_path / "a", "some/name", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS
    assert info == spool.spool(tmp_path / "b", "some/name", opening()[0], 10**6)  # the digest is that of one reading
    assert states == [None, *({"next": n} for n in (7, 28, 28, 28, 84))]
    assert "some/name broke off (ConnectionError: reset); trying again in 0 s" in capsys.readouterr().err


def test_a_data_set_that_comes_back_late_is_tried_again(tmp_path, marked):
    reading, states = opening({30: ConnectionError()})
    away = [2]  # so often it cannot be opened, once it broke off

    def open(state):
        if state is not None and away[0]:
            away[0] -= 1
            raise TextError("cannot be opened") from ConnectionError("offline")
        return reading(state)

    spool.spool(tmp_path / "a", "a", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS and states == [None, {"next": 28}] and not away[0]


@pytest.mark.parametrize(
    "errors, tries",
    [
        ({20: ValueError("bad row")}, 1),  # nothing that time heals
        ({0: ConnectionError("bad row")}, 1),  # never reached
        ({n: ConnectionError("bad row") for n in range(15, 19)}, 4),
    ],
)
def test_what_stays_broken_is_named_and_not_whole(tmp_path, marked, errors, tries):
    open, states = opening(errors)
    with pytest.raises(TextError, match=r"some/name broke off after \d+ bytes \(\w+: bad row\)"):
        spool.spool(tmp_path / "a", "some/name", open, 10**6)
    assert len(states) == tries and not (tmp_path / "a").exists()
    spool.spool(tmp_path / "a", "some/name", open, 10**6)  # the next start goes on
    assert documents_in(tmp_path / "a") == NUMBERS and states[-1] == (None if 0 in errors else {"next": 14})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.lock", "a"]


def test_an_interrupted_reading_goes_on(tmp_path, marked):
    open, states = opening({50: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        spool.spool(tmp_path / "a", "a", open, 10**6)
    assert not (tmp_path / "a").exists()
    with (tmp_path / ".a.partial" / "text").open("ab") as file:  # of a process that was killed before its next mark
        file.write(b"half a docu")
    spool.spool(tmp_path / "a", "a", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS and states == [None, {"next": 49}]


def test_a_full_disk_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TextError, match=r"some/name: cannot write 1,000,000 bytes to the cache, .*: .*ZETT_CACHE"):
            spool.spool(tmp_path / "a", "some/name", opening(stop=10**9)[0], 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]


def test_two_that_want_the_same_read_it_once(tmp_path):
    open, states = opening(stop=10**9)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(lambda _: spool.spool(tmp_path / "a", "a", open, 10**6), range(4)))
    assert states == [None] and infos == 4 * [infos[0]] and len(documents_in(tmp_path / "a")) == 10**5
