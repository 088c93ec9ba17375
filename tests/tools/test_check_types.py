"""The number of type errors may only fall, part by part."""

import json
import sys

import pytest

from tools import check_types
from tools.check_types import KNOWN, PACKAGE, compare, errors_by_part

CLEAN = ("body", "trajectory", "motion", "io", "metrics", "rewards")


def report(**errors: int) -> dict:
    """What pyright would say; a warning counts for nothing."""
    place = {"range": {"start": {"line": 6}}, "message": "None has no name"}
    found = [
        {"file": str(PACKAGE / part / "some.py"), "severity": "error"} | place
        for part, count in errors.items()
        for _ in range(count)
    ]
    return {"generalDiagnostics": [*found, {"file": str(PACKAGE / "rewards.py"), "severity": "warning"} | place]}


def test_errors_are_counted_by_part() -> None:
    assert errors_by_part(report(data=2, cards=1)) == {"total": 3, "cards": 1, "data": 2}


def test_what_has_more_and_what_has_fewer() -> None:
    more, fewer = compare({"total": 3, "data": 2, "viz": 1}, {"total": 4, "data": 3, "cards": 1})
    assert more == [
        "cards has 1 errors, 0 were known.", "data has 3 errors, 2 were known.", "total has 4 errors, 3 were known."
    ]  # fmt: skip
    assert fewer == ["viz has 0 errors, 1 were known."]


@pytest.mark.parametrize(
    ("found", "arguments", "status", "said", "known"),
    [
        ({"data": 2}, [], 0, "2 errors in all", {"total": 2, "data": 2, "body": 0}),
        ({"data": 1}, [], 0, "Write that down", {"total": 2, "data": 2, "body": 0}),
        ({"data": 1}, ["--update"], 0, "data has 1 errors, 2 were known", {"total": 1, "data": 1, "body": 0}),
        ({"data": 1, "body": 1}, ["--update"], 1, "body/some.py:7: None has", {"total": 2, "data": 2, "body": 0}),
    ],
)
def test_the_command(found, arguments, status, said, known, tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "known.json"
    path.write_text(json.dumps({"total": 2, "data": 2, "body": 0}))
    monkeypatch.setattr(check_types, "KNOWN", path)
    monkeypatch.setattr(check_types, "run_pyright", lambda: report(**found))
    monkeypatch.setattr(sys, "argv", ["check_types.py", *arguments])
    assert check_types.main() == status
    assert said in capsys.readouterr().out
    assert json.loads(path.read_text()) == known


def test_what_is_clean_stays_so() -> None:
    known = json.loads(KNOWN.read_text())
    assert {part: known[part] for part in CLEAN} == dict.fromkeys(CLEAN, 0)
    assert known["total"] == sum(count for part, count in known.items() if part != "total") <= 150
