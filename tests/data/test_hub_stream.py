"""Hugging Face data sets, streamed from local folders: splits, parts, resuming, errors."""

import itertools
import json

import pytest
from texts import TEXTS, both, content, write_jsonl

from zett.data.hub_stream import HubSource, HubTexts, Stream
from zett.data.sources import open_text
from zett.errors import UserError


def test_hub_data_sets_are_streamed(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", TEXTS)
    train, valid = (open_text(f"hf:{tmp_path}", split=split) for split in ("train", "valid"))
    assert isinstance(train, Stream)
    assert sorted([*train, *valid]) == sorted(TEXTS) and len(valid) > 0
    assert train[1:3] == list(train)[1:3] and train[0] == TEXTS[0] and len(train) == len(list(train))
    assert train.fingerprint() == open_text(f"hf:{tmp_path}").fingerprint() != valid.fingerprint()


def test_hub_data_sets_keep_their_split(tmp_path):
    (tmp_path / "train.parquet").write_bytes(content("parquet", TEXTS[:10]))
    (tmp_path / "validation.parquet").write_bytes(content("parquet", TEXTS[10:12]))
    assert both(f"hf:{tmp_path}") == [TEXTS[:10], TEXTS[10:12]]


def test_what_is_chosen_of_a_hub_data_set(tmp_path):
    for language in ("c++", "rust"):
        (tmp_path / language).mkdir()
        write_jsonl(tmp_path / language / "train.jsonl", [f"{language} {i}" for i in range(4)], column="content")
    documents = open_text(f"hf:{tmp_path}?data_dir=c++&column=content")
    assert set(documents) <= {f"c++ {i}" for i in range(4)} and len(documents) >= 3
    assert set(open_text(f"hf:{tmp_path}?data_files=rust/*.jsonl", text_column="content")) <= {f"rust {i}" for i in range(4)}


@pytest.mark.parametrize("files", [2, 5])  # fewer than parts, of which each row counts, and more
def test_parts_of_a_data_set_are_disjoint_and_all_of_it(tmp_path, files):
    for i in range(files):
        write_jsonl(tmp_path / f"train-{i}.jsonl", TEXTS[i::files])
    whole = open_text(f"hf:{tmp_path}")
    parts = [list(whole.part(n, 3, 10**6)) for n in range(3)]
    assert all(parts) and sorted(itertools.chain(*parts)) == sorted(whole)
    assert len(whole.part(1, 3, 3 * 20)) < len(parts[1])  # each reads its share of the bytes
    assert whole.part(0, 1, whole.limit) is whole


def test_a_data_set_goes_on_where_it_broke_off(tmp_path):
    """With the places that the library gives: in files of several parts, of which rows are held out."""
    for i in range(3):
        write_jsonl(tmp_path / f"train-{i}.jsonl", TEXTS[i::3])
    source = HubSource(str(tmp_path))
    for part, parts in ((0, 1), (1, 2), (1, 4)):
        expected = list(HubTexts(source, "text", "train", part, parts))
        for n in (1, 10, len(expected) - 1):
            first = HubTexts(source, "text", "train", part, parts)
            begun = list(itertools.islice(first, n))
            state = json.loads(json.dumps(first.state()))
            assert begun + list(HubTexts(source, "text", "train", part, parts, state)) == expected


@pytest.mark.parametrize(
    "spec, column, message",
    [("{folder}", "body", r"no column 'body'; columns: text, n"), ("{folder}/nope", "text", "cannot be opened")],
)
def test_hub_errors(tmp_path, spec, column, message):
    write_jsonl(tmp_path / "train.jsonl", TEXTS[:3])
    with pytest.raises(UserError, match=message):
        list(open_text("hf:" + spec.format(folder=tmp_path), text_column=column))
