"""The benchmark of a GPU, in small on a CPU."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the file holds after a run of everything that a CPU can do."""
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    gpu.main(["--tiny", "--cpu", "--batches", "1", "3", "--output", str(path)])
    return json.loads(path.read_text())


def test_every_row_has_its_number(written: dict) -> None:
    rows = {row["name"]: row for row in written["rows"]}
    assert not [row for row in rows.values() if "error" in row]
    grpo = rows["GRPO, an iteration of grpo_paper.yaml"]
    assert grpo["ratio"] == pytest.approx(grpo["iteration_s"] / grpo["arithmetic_s"])
    assert rows["pre-training, a step of pretrain_egoallo.yaml"]["step_s"] > 0
    for batch in (1, 3):
        assert rows[f"sampling, batch {batch}, float32"]["difference"] == 0
        assert 0 < rows[f"sampling, batch {batch}, bf16"]["difference"] < 0.1
    assert written["machine"]["device"] == "CPU"


def test_the_page_shows_what_was_measured() -> None:
    page = gpu.PAGE.read_text()
    assert page.split(gpu.START)[1].split(gpu.END)[0].strip() == gpu.tables(gpu.KEPT)


def test_a_row_that_fails_says_why_and_the_others_run(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.yaml")
    rows = gpu.main(["--tiny", "--cpu", "--batches", "1", "--grpo", missing])
    failed = [row for row in rows if "error" in row]
    assert [row["name"] for row in failed] == ["GRPO, an iteration of none.yaml"]
    assert missing in failed[0]["error"]
    assert len(rows) == 5


def test_rows_beyond_the_time_are_left_out() -> None:
    rows = gpu.main(["--tiny", "--cpu", "--batches", "1", "--seconds", "0"])
    assert all("left out" in row["error"] for row in rows)
