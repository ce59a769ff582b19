from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnemon.evaluation import EvalRow
from mnemon.library import Library
from mnemon.training import scoring
from tests.cli.conftest import Command

LIB = ("--library", "lib")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows measured with a second concept, in which <sip> has lost 0.3."""
    real: Callable[..., EvalRow] = scoring.evaluate
    rows: list[dict[str, Any]] = []

    def lower(*arguments: Any, **options: Any) -> EvalRow:
        row = real(*arguments, **options)
        if len(row.concepts) > 1:
            row.concepts["sip"]["identity_alignment"] -= 0.3
            rows.append(row.to_json())
        return row

    monkeypatch.setattr(scoring, "evaluate", lower)
    return rows


def test_a_concept_that_costs_too_much_is_kept_aside(
    teach: Command, mnemon: Command, measured: list[dict[str, Any]]
) -> None:
    teach("--noun", "mug", *LIB)
    refused = teach("--noun", "cat", "--max-forgetting", 0.2, *LIB, source="tom")
    assert refused.code == 1 and "sip" in refused.out and "tom" in refused.out
    assert "<tom> was not committed" in refused.err and "<sip> falls from" in refused.err
    library = Library.open("lib")
    assert library.names() == ["sip"] and library.rows().keys() == {1}
    assert not list((library.path / "training").iterdir())
    assert "kept aside" in teach("--noun", "cat", *LIB, source="tom").err
    asked = mnemon("commit", *LIB)
    assert asked.code == 1 and "--anyway" in asked.err and "tom" in asked.out
    assert mnemon("commit", "--anyway", *LIB, "--json").json == {"concepts": ["tom"], "state": 2, "row": measured[0]}
    library = Library.open("lib")
    assert library.names() == ["sip", "tom"] and library.rows()[2] == measured[0]
    assert library.concepts()["tom"].settings["forgets"].keys() == {"sip"}
    assert "No candidate" in mnemon("discard", *LIB).err


def test_a_concept_that_costs_little_is_committed_with_its_row(
    teach: Command, mnemon: Command, measured: list[dict[str, Any]]
) -> None:
    assert "leave out max_forgetting" in teach("--max-forgetting", 1, "--no-score", *LIB).err
    assert "leave out max_forgetting" in teach("--max-forgetting", 1, "--score", "new", *LIB).err
    teach("--noun", "mug", *LIB)
    library = Library.open("lib")
    (library.path / "scores" / "000001.json").rename("row.json")
    assert "run `mnemon evaluate" in teach("--max-forgetting", 1, *LIB, source="tom").err
    (library.path.parent / "row.json").rename(library.path / "scores" / "000001.json")
    assert teach("--max-forgetting", 1, *LIB, "--json", source="tom").json["row"] == measured[0]
    assert Library.open("lib").rows()[2] == measured[0] and len(measured) == 1


def test_discard_drops_what_was_kept_aside(teach: Command, mnemon: Command, measured: list[dict[str, Any]]) -> None:
    teach("--noun", "mug", *LIB)
    teach("--noun", "cat", "--max-forgetting", 0.2, *LIB, source="tom")
    assert mnemon("discard", *LIB).code == 0
    assert Library.open("lib").names() == ["sip"] and "No candidate" in mnemon("commit", *LIB).err


def test_an_import_that_costs_too_much_changes_nothing(
    teach: Command, mnemon: Command, measured: list[dict[str, Any]]
) -> None:
    def files() -> dict[str, bytes]:
        there = (path for path in Path("lib").rglob("*") if path.is_file() and "lock" not in path.name)
        return {str(path): path.read_bytes() for path in there}

    teach("--noun", "mug", *LIB)
    mnemon("export", "sip", *LIB, "--as", "kohya", "--out", "out")
    before, how = files(), ("out/sip.safetensors", *LIB, "--name", "tom", "--trigger", "cat", "--max-forgetting")
    assert "leave out max_forgetting" in mnemon("import", *how, 1, "--no-score").err
    assert "leave out max_forgetting" in mnemon("import", *how, 1, "--score", "new").err
    refused = mnemon("import", *how, 0.2)
    assert refused.code == 1 and "<tom> was not committed" in refused.err and "<sip> falls from" in refused.err
    assert "The library is as it was" in refused.err and "-0.3" in refused.out
    assert files() == before
    taken = mnemon("import", *how, 2, "--json").json
    assert taken["row"] == measured[1] == Library.open("lib").rows()[2]


def test_an_import_says_what_it_changes(teach: Command, mnemon: Command) -> None:
    teach("--noun", "mug", *LIB)
    mnemon("export", "sip", *LIB, "--as", "kohya", "--out", "out")
    printed = mnemon("import", "out/sip.safetensors", *LIB, "--name", "tom", "--trigger", "cat").out
    before, after = (row["concepts"]["sip"]["identity_alignment"] for row in Library.open("lib").rows().values())
    assert "change" in printed and f"{after - before:+.3f}" in printed
