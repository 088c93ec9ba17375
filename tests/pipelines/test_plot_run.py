"""The command that draws a run's curves, on logs as a Trainer writes them."""

import json
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from motion_grpo.cli import plot_run as module
from motion_grpo.cli.main import main
from transformers import TrainerState


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of ``motion-grpo plot-run`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["motion-grpo", "plot-run", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code or 0


def log(last: int) -> list[dict]:
    return [{"reward": 0.1 * step, "rewards/position/mean": 0.5, "step": step} for step in range(1, last + 1)]


def write_checkpoint(folder: Path, step: int) -> None:
    folder.mkdir()
    TrainerState(log_history=log(step)).save_to_json(str(folder / "trainer_state.json"))


def test_draws_the_newest_checkpoint_of_a_run_that_goes_on(monkeypatch, tmp_path, capsys) -> None:
    for step in (9, 10):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
    assert run(monkeypatch, tmp_path) == 0
    assert imread(tmp_path / "grpo_curves.png").shape[1] == 1600
    assert "step 10" in capsys.readouterr().out


@pytest.mark.parametrize(("logged", "saved", "last"), [(12, 10, 12), (10, 12, 12)])
def test_whichever_log_goes_further(tmp_path, logged: int, saved: int, last: int) -> None:
    """A finished run, and one that was resumed since."""
    (tmp_path / "training_log.json").write_text(json.dumps(log(logged)))
    write_checkpoint(tmp_path / f"checkpoint-{saved}", saved)
    assert module.run_log(tmp_path) == log(last)


def test_a_checkpoint_is_passed_over_while_it_is_written(tmp_path) -> None:
    write_checkpoint(tmp_path / "checkpoint-5", 5)
    (tmp_path / "checkpoint-6").mkdir()
    assert module.run_log(tmp_path) == log(5)


def test_one_checkpoint(monkeypatch, tmp_path) -> None:
    write_checkpoint(tmp_path / "checkpoint-5", 5)
    assert run(monkeypatch, tmp_path / "checkpoint-5", "-o", tmp_path / "curves.png") == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-5", "curves.png"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (None, ("OUT/nowhere",), "there is no such folder"),
        (None, ("OUT",), "neither training_log.json nor a checkpoint with trainer_state.json"),
        ("[{", ("OUT",), "training_log.json: this is not JSON"),
        ('{"loss": 1.0}', ("OUT",), "training_log.json: there is no list of logged entries"),
        ("[1, 2]", ("OUT",), "training_log.json: there is no list of logged entries"),
        ('[{"loss": 1.0, "step": 1}]', ("OUT",), "holds no reward"),
        (json.dumps(log(2)), ("OUT", "-o", "OUT/x.gif"), "cannot write .gif"),
        (json.dumps(log(2)), ("OUT", "-o", "OUT/no/x.png"), "does not exist"),
    ],
)
def test_bad_input_ends_in_one_sentence(text, arguments, message, monkeypatch, tmp_path, capsys) -> None:
    if text is not None:
        (tmp_path / "training_log.json").write_text(text)
    assert run(monkeypatch, *(a.replace("OUT", str(tmp_path)) for a in arguments)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("motion-grpo: ")
    assert message in error
    assert not list(tmp_path.glob("*.png"))
