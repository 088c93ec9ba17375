"""The command that a user types to have a motion judged."""

import re
from pathlib import Path

import pytest

from motion_grpo import Motion, load_trajectory
from motion_grpo.inference.scoring import score_motion
from motion_grpo.models import MotionPerceptualModel
from tests.pipelines.test_recover import EXAMPLES, run
from tests.trajectory.helpers import csv_of, in_axes, walk

WALK = EXAMPLES / "brisk_walk.npz"


@pytest.fixture
def model(tmp_path) -> Path:
    MotionPerceptualModel(d_latent=8, num_blocks=1, num_heads=2, frames_per_token=8).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_prints_the_score_and_the_worst_windows(monkeypatch, model: Path, capsys) -> None:
    arguments = (WALK, "--trajectory", WALK.with_suffix(".csv"), "--model", model, "--lowest", 2, "--window", 64)
    assert run(monkeypatch, "score", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    motion = Motion.load(WALK)
    head = load_trajectory(WALK.with_suffix(".csv"), floor_height=motion.floor_height)
    scored = score_motion(MotionPerceptualModel.from_pretrained(model), motion, head, window=64)
    assert f"{scored.score:.3f}" in lines[0]
    assert f"mean of {len(scored.windows)} windows" in lines[0]
    assert len(lines) == 3
    for line, part in zip(lines[1:], scored.lowest(2), strict=True):
        numbers = [float(number) for number in re.findall(r"[\d.]+\d|\d", line)]
        assert numbers == pytest.approx(
            [part.score, part.start_time, part.stop_time, part.start, part.stop - 1], abs=6e-3
        )


def test_without_a_trajectory_the_motions_own_head_counts(monkeypatch, model: Path, capsys) -> None:
    assert run(monkeypatch, "score", WALK, "--model", model) == 0
    scored = score_motion(MotionPerceptualModel.from_pretrained(model), Motion.load(WALK))
    out = capsys.readouterr().out
    assert f"{scored.score:.3f}" in out
    assert "with its own head" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.npz", "--model", "MODEL"), "nowhere.npz"),
        (("WALK", "--trajectory", "OTHER", "--model", "MODEL"), "each frame needs one pose. Resample"),
        (("WALK", "--model", "nowhere"), "no model that ships with this package"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, message, monkeypatch, model: Path, capsys) -> None:
    places = {"WALK": WALK, "OTHER": EXAMPLES / "look_around.csv", "MODEL": model}
    assert run(monkeypatch, "score", *(places.get(a, a) for a in arguments)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("motion-grpo: ")
    assert message in error


def test_a_piece_of_a_recording_meets_the_head_it_came_from(monkeypatch, model: Path, tmp_path, capsys) -> None:
    poses, times = walk(90, turn=2.0)
    given = in_axes(poses, "openxr")
    times[40:] += 5.0
    head = tmp_path / "head.csv"
    head.write_text(csv_of("timestamp,x,y,z,qx,qy,qz,qw", given, times))
    options = ("--convention", "openxr")
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "x.npz", "--split", "--steps", 1, *options) == 0
    for piece in (0, 1):
        arguments = (tmp_path / f"x_{piece}.npz", "--trajectory", head, "--model", model, *options)
        assert run(monkeypatch, "score", *arguments) == 0
    assert run(monkeypatch, "score", tmp_path / "x_0.npz", "--trajectory", head, "--model", model) == 1
    assert "--convention 'openxr'" in capsys.readouterr().err
