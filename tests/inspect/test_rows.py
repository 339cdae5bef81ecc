"""Which rows of a model stand out, and that a page of them does no harm."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from vocabularies import vocabulary

from zett.cli import run_command
from zett.errors import UserError
from zett.files import folders
from zett.inspect import rows as module
from zett.inspect.rows import describe_rows, donor_of, inspect_rows, neighbours, row_name, row_norms
from zett.inspect.rows_page import rows_page
from zett.inspect.rows_terminal import rows_tables
from zett.inspect.terminal import WIDTH


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, dict]:
    """Rows some of which stand out, and what is found of them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((700, 24)).astype(np.float32)
    rows *= np.exp(0.1 * rng.standard_normal((700, 1))) / np.linalg.norm(rows, axis=1, keepdims=True)
    rows[300:330] = rows[40] + 0.3 * rng.standard_normal((30, 24)) / np.sqrt(24)  # around a hub, but not almost the same
    rows[10] *= 30
    rows[11] *= 0.01
    rows[12] = np.nan
    rows[13, 3] = np.inf
    rows[14] = 0
    rows[15] = rows[16]
    rows[17] = 1.001 * rows[18] + 0.001
    return rows, describe_rows(rows, vocabulary("bpe"), "input")


def ids_of(kind: dict) -> list[int]:
    assert kind["number"] == len(kind["rows"]) or kind["number"] > len(kind["rows"]) == module.LISTED
    return [row["id"] for row in kind["rows"]]


def test_rows_that_stand_out_are_found(planted):
    _, found = planted
    name = vocabulary("bpe")
    assert {kind: ids_of(found[kind]) for kind in ("not_finite", "zero", "long", "short")} == {
        "not_finite": [12, 13], "zero": [14], "long": [10], "short": [11],
    }  # fmt: skip
    assert found["long"]["rows"][0]["deviations"] > module.DEVIATIONS and found["long"]["rows"][0]["norm"] > 20
    assert [(row["id"], row["neighbour"]) for row in found["duplicates"]["rows"]] == [(16, row_name(name, 15))]
    assert sorted(ids_of(found["alike"])) == [17, 18] and found["alike"]["rows"][0]["cosine"] > module.ALIKE
    assert ids_of(found["hubs"]) == [40] and found["hubs"]["rows"][0]["count"] >= 20
    assert 0.8 < found["norm"]["median"] < 1.2


def test_ordinary_rows_do_not_stand_out():
    rows = np.random.default_rng(1).standard_normal((700, 64)).astype(np.float32)
    found = describe_rows(rows, vocabulary("bpe"), "input")
    assert {kind: found[kind]["number"] for kind in module.KINDS} == dict.fromkeys(module.KINDS, 0)
    with pytest.raises(UserError, match="all output rows are zero"):
        describe_rows(np.zeros((5, 4), np.float16), vocabulary("bpe"), "output")


def test_neighbours_equal_a_plain_computation(planted):
    rows, _ = planted
    norms = row_norms(rows)
    ids = np.flatnonzero(norms > 0)[3:]
    nearest, cosines, counts = neighbours(rows, norms, ids, "input")
    units = rows[ids] / norms[ids, None]
    plain = units @ units.T
    np.fill_diagonal(plain, -2)
    assert nearest[ids].tolist() == ids[plain.argmax(1)].tolist()
    np.testing.assert_allclose(cosines[ids], plain.max(1), atol=1e-5)
    assert counts.sum() == len(ids) and nearest[12] == -1 and np.isnan(norms[12])
    alone = neighbours(rows, norms, ids[:1], "input")
    assert alone[0].max() == -1 and not alone[2].any()


def test_a_result_says_what_made_it_and_what_a_donor_can_carry(base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "result")
    folders.mark(folder, "transfer", {"method": "omp:donor=some/donor,k=8"})
    report = inspect_rows(folder)
    text, page = rows_tables(report), rows_page(report)
    for said in (text, page):
        said = " ".join(said.split())
        assert "made by zett transfer (omp:donor=some/donor,k=8)" in said and "breaker tokens" in said
        assert "donor some/donor" in said and "input rows" in said.lower() and "output rows" in said.lower()
    assert max(map(len, text.splitlines())) <= WIDTH
    assert donor_of("fvt") is donor_of(None) is donor_of("of another version") is None and donor_of("clp:d") == "d"
    plain = inspect_rows(base_folder)
    assert plain["donor"] is None and list(plain["sides"]) == ["input", "output"] and "made by" not in rows_tables(plain)


def test_names_of_tokens_do_no_harm_to_the_page(planted):
    _, found = planted
    nasty = {"number": 30, "rows": [{"token": "<script>alert(1)</script>", "id": 3, "norm": 9.0, "deviations": 7.5}]}
    model = {"name": "a/<b>", "ids": 700, "width": 24, "tied": True, "command": None, "method": None}
    report = {"model": model, "sides": {"input": found | {"long": nasty}}, "donor": None, "kinds": module.KINDS}
    page = rows_page(report)
    assert page.startswith("<!doctype html>") and "<script" not in page and "<b>" not in page and "http" not in page
    assert "&lt;script&gt;" in page and "29 more" in page and "they are its output rows, too" in rows_tables(report)


def test_the_command(base_folder, tmp_path, capsys):
    made, html = tmp_path / "a.json", tmp_path / "a.html"
    arguments = ["--model", str(base_folder), "--json", str(made), "--html", str(html)]
    assert run_command("inspect", arguments, "zett inspect") == 0
    assert "input rows" in capsys.readouterr().out and html.read_text().startswith("<!doctype html>")
    report = json.loads(made.read_text())
    assert report["model"]["width"] == 16 and set(report["sides"]) == {"input", "output"}
    assert run_command("inspect", arguments, "zett inspect") == 0  # what it wrote itself it may write again
    with pytest.raises(UserError, match=r"--text is of use with --tokenizer only"):
        run_command("inspect", [*arguments[:2], "--text", str(Path(__file__))], "zett inspect")
    with pytest.raises(UserError, match=r"arguments are required: --model"):
        run_command("inspect", ["--json", "-"], "zett inspect")
