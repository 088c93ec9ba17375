"""What is kept of a study: a line a run, written once, and docs/grpo.md says what the lines say."""

import shutil
from pathlib import Path

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def test_a_run_is_kept_once(tmp_path: Path) -> None:
    from records import keep_record, read_records

    path = tmp_path / "study.jsonl"
    run = {"base": "b", "row": "r", "seed": 1, "facts": {"updates": 3}, "results": {"mpjpe": 1.0}}
    for record in (run, run | {"seed": 0}, run | {"results": {"mpjpe": 2.0}}):
        keep_record(path, record)
    assert read_records(path) == [run | {"seed": 0}, run | {"results": {"mpjpe": 2.0}}]
    with pytest.raises(ValueError, match="holds another run of b r 1; what is kept stays as it was"):
        keep_record(path, run | {"facts": {"updates": 4}})


def test_the_page_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpo_study

    page = Path(shutil.copy(grpo_study.PAGE, tmp_path))
    monkeypatch.setattr(grpo_study, "PAGE", page)
    monkeypatch.setattr(grpo_study, "FIGURE", tmp_path / "figure.png")
    before = page.read_text()
    grpo_study.write()
    assert page.read_text() == before
    assert (tmp_path / "figure.png").stat().st_size > 10_000
