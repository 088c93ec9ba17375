"""What all commands have in common: examples, exit codes, tracebacks on demand, JSON, no bars in a log."""

import json
import os
import re
import subprocess
import sys

import pytest
from motion_grpo.cli.help_examples import EXAMPLES
from motion_grpo.cli.main import COMMANDS, main

from motion_grpo import Motion
from tests.packaging.environment import ROOT
from tests.pipelines.test_recover import run

WALK = ROOT / "examples" / "brisk_walk.csv"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_in_examples_whose_options_exist(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, name, "--help") == 0
    text = capsys.readouterr().out
    for line in EXAMPLES[name]:
        assert line.startswith(name)
        assert f"motion-grpo {line}" in text
        inner = line.split()[: 2 if name == "data" else 1]
        assert run(monkeypatch, *inner, "--help") == 0
        known = capsys.readouterr().out
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", line):
            assert re.search(rf"(?<![\w-]){option}\b", known), option


def test_every_command_has_examples():
    assert EXAMPLES.keys() == COMMANDS.keys()


def test_exit_codes(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "info", WALK) == 0
    assert run(monkeypatch, "info", tmp_path / "nothing.csv") == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("motion-grpo: ")
    assert run(monkeypatch, "info", WALK, "--no-such-option") == 2
    assert run(monkeypatch, "info") == 2

    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("motion_grpo.cli.info.kind_of", interrupt)
    assert run(monkeypatch, "info", WALK) == 130


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_traceback_on_demand(place, monkeypatch, tmp_path):
    words = ["info", str(tmp_path / "nothing.csv")]
    words.insert(place, "--debug")
    monkeypatch.setattr(sys, "argv", ["motion-grpo", *words])
    with pytest.raises(FileNotFoundError):
        main()


def test_recover_and_score_as_json(monkeypatch, tmp_path, capsys):
    paths = [tmp_path / f"walk_{number}.npz" for number in range(2)]
    options = ("--samples", 2, "--steps", 1, "--json")
    assert run(monkeypatch, "recover", WALK, "-o", tmp_path / "walk.npz", *options) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [one["file"] for one in told] == list(map(str, paths))
    assert [one["frames"] for one in told] == [len(Motion.load(path)) for path in paths]
    assert {one["floor_from"] for one in told} == {"given"}
    assert all(0 <= one["plausible"] <= 1 for one in told)
    assert "wrote" in captured.err
    assert run(monkeypatch, "score", paths[0], "--json") == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["score"] == pytest.approx(told[0]["plausible"], abs=1e-3)
    assert scored["windows"][0]["start"] == 0


def test_a_log_holds_no_bars(tmp_path):
    command = [sys.executable, "-c", "from motion_grpo.cli.main import main; main()"]
    given = ["recover", WALK, "-o", tmp_path / "walk.npz", "--steps", "1"]
    done = subprocess.run(
        [*command, *given], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert "%|" not in done.stdout + done.stderr


def test_the_demo_says_what_it_lacks(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "demo", "--examples", tmp_path) == 1
    assert "has no walk_turns.csv" in capsys.readouterr().err
