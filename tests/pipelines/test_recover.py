"""The command a user types, on a recorded example and on bad input."""

import sys
from pathlib import Path

import numpy as np
import pytest
from motion_grpo.cli.main import main

from motion_grpo import Motion
from motion_grpo.body import Skeleton
from tests.tiny import tiny_pipeline
from tests.trajectory.test_hand_observations import everywhere, recording
from tests.trajectory.test_hand_readers import write_csv

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of ``motion-grpo`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["motion-grpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code or 0


def test_writes_the_motion_and_a_picture(monkeypatch, tmp_path) -> None:
    output, picture = tmp_path / "walk.npz", tmp_path / "walk.png"
    head = EXAMPLES / "brisk_walk.csv"
    assert run(monkeypatch, "recover", head, "-o", output, "--picture", picture, "--floor-height", 0.0) == 0
    motion, truth = Motion.load(output), Motion.load(EXAMPLES / "brisk_walk.npz")
    assert len(motion) == len(truth)
    # A body, and the right one: the rest pose under the same head is at 253 mm.
    assert (motion.joints - truth.joints)[:, :22].norm(dim=-1).mean() < 0.09
    assert picture.stat().st_size > 10_000


def test_samples_are_numbered_and_differ(monkeypatch, tmp_path) -> None:
    head = EXAMPLES / "brisk_walk.csv"
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "walk.npz", "--samples", 2, "--seed", 3) == 0
    first, second = (np.load(tmp_path / f"walk_{i}.npz")["poses"] for i in range(2))
    assert first.shape == second.shape
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("reads_wrists", [True, False])
def test_what_is_known_of_the_wearer(reads_wrists, monkeypatch, tmp_path, capsys) -> None:
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "walk.npz"
    tiny_pipeline(include_wrists_cond=reads_wrists).save_pretrained(checkpoint)
    table = write_csv(tmp_path / "walk.csv", *recording(20), everywhere(20))
    known = ("--hands", table, "--stature", 1.9, "--floor-height", 0.0)
    code = run(monkeypatch, "recover", table, "-o", output, "--checkpoint", checkpoint, *known)
    if not reads_wrists:
        assert code == 1
        assert "This network reads no wrists" in capsys.readouterr().err
        return
    assert code == 0
    body = Skeleton.default()
    assert float(body.stature(Motion.load(output).betas)) == pytest.approx(1.9, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv", "-o", "OUT/x.npz"), "no file"),
        (("HEAD", "-o", "OUT/x.fbx"), "cannot write .fbx"),
        (("HEAD", "-o", "OUT/missing/x.npz"), "does not exist"),
        (("HEAD", "-o", "OUT/x.npz", "--picture", "OUT/x.gif"), "png"),
        (("HEAD", "-o", "OUT/x.npz", "--checkpoint", "OUT"), "model_index.json"),
        (("HEAD", "-o", "OUT/x.npz", "--stature", "175"), "stature of 175 m is nobody's; give metres"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, message, monkeypatch, tmp_path, capsys) -> None:
    places = {"HEAD": str(EXAMPLES / "brisk_walk.csv")}
    arguments = [places.get(a, a.replace("OUT", str(tmp_path))) for a in arguments]
    assert run(monkeypatch, "recover", *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("motion-grpo: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []
