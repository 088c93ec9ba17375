"""What a run's folder tells: when it was trained, and by what, whatever happened in between."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from motion_grpo import runs
from motion_grpo.cards import record_run
from motion_grpo.runs import add_session, newest_checkpoint, read_sessions, training_seconds
from motion_grpo.training import DenoisingConfig
from tests.cards.test_runs import run_card
from tests.tiny import moving_motion, write_shard

START = datetime(2025, 3, 1, 12, tzinfo=UTC)


class Clock:
    """Stands in for datetime in motion_grpo.runs."""

    now_is = START

    @classmethod
    def now(cls, zone: object) -> datetime:
        return cls.now_is

    fromtimestamp, fromisoformat = datetime.fromtimestamp, datetime.fromisoformat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "now_is", START)
    monkeypatch.setattr(runs, "datetime", Clock)
    return Clock


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    write_shard(tmp_path / "pack", "cmu", "train", [moving_motion(20)])
    return tmp_path / "pack"


def save_checkpoint(run: Path, step: int, after: timedelta) -> None:
    path = run / f"checkpoint-{step}" / "trainer_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"global_step": step}))
    os.utime(path, ((START + after).timestamp(),) * 2)


def record(run: Path, pack: Path, **settings) -> None:
    args = DenoisingConfig(str(run), use_cpu=True, report_to="none", **settings)
    record_run(args, data={"dataset_name": str(pack), "sources": None}, model={"model_name_or_path": None})


def test_a_run_that_was_killed_and_resumed_counts_both_sessions(tmp_path: Path, clock: type[Clock]) -> None:
    add_session(tmp_path, {})
    save_checkpoint(tmp_path, 40, timedelta(minutes=50))
    # Killed some time after its checkpoint, resumed the next day, and ended after half an hour.
    clock.now_is = START + timedelta(days=1)
    add_session(tmp_path, {})
    sessions = read_sessions(tmp_path)
    assert [session["from_step"] for session in sessions] == [0, 40]
    log = [{"step": 60, "train_runtime": 1800.0}]
    assert training_seconds(sessions, log, running=False) == pytest.approx(50 * 60 + 1800)
    # While it goes on, until now; and a run that never ended tells nothing when it no longer goes on.
    clock.now_is += timedelta(minutes=6)
    assert training_seconds(sessions, [], running=True) == pytest.approx(56 * 60)
    assert training_seconds(sessions, [], running=False) is None


def test_a_session_without_a_checkpoint_is_lost(tmp_path: Path, clock: type[Clock]) -> None:
    add_session(tmp_path, {})
    clock.now_is = START + timedelta(hours=5)
    add_session(tmp_path, {})
    assert training_seconds(read_sessions(tmp_path), [{"train_runtime": 60.0}], running=False) == 60.0


def test_runs_that_know_of_no_session(tmp_path: Path) -> None:
    assert read_sessions(tmp_path) == []
    assert training_seconds([], [{"train_runtime": 12.0}], running=True) == 12.0
    assert training_seconds([], [], running=True) is None
    assert newest_checkpoint(tmp_path) is None


def test_what_a_run_started_with_is_written_once(tmp_path: Path, pack: Path) -> None:
    run = tmp_path / "run"
    record(run, pack, learning_rate=1e-3, max_steps=10)
    before = (run / "run.json").read_bytes()
    recorded = json.loads(before)
    assert recorded["settings"]["learning_rate"] == 1e-3
    (recordings,) = recorded["recordings"]
    assert recordings["dataset"] == "pack"
    assert len(recordings["dataset_sha256"]) == 64
    assert recorded["code"]["version"]
    record(run, pack, learning_rate=1e-3, max_steps=20)
    assert (run / "run.json").read_bytes() == before
    first, second = read_sessions(run)
    assert first["changed"] == {}
    assert second["changed"]["settings"]["max_steps"] == 20
    assert "learning_rate" not in second["changed"]["settings"]
    assert (second["code"], second["versions"]) == (recorded["code"], recorded["versions"])


def test_other_data_in_a_later_session_are_named(tmp_path: Path, pack: Path) -> None:
    record(tmp_path / "run", pack)
    write_shard(pack, "bandai1", "train", [moving_motion(21)])
    with pytest.warns(UserWarning, match="The data are not those that the run in .*run started with"):
        record(tmp_path / "run", pack)
    first, second = (session["recordings"] for session in read_sessions(tmp_path / "run"))
    assert first != second


def test_a_card_counts_all_sessions(tmp_path: Path, pack: Path, clock: type[Clock]) -> None:
    run = tmp_path / "run"
    record(run, pack)
    save_checkpoint(run, 10, timedelta(hours=3))
    clock.now_is = START + timedelta(days=1)
    record(run, pack)
    card = run_card(run)  # whose log says that the second one took 0.5 hours
    assert "3.5 hours on one CPU in 2 sessions" in card.text
