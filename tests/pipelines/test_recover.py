"""The command a user types, on a recorded example and on bad input."""

import sys
from pathlib import Path

import numpy as np
import pytest
from motion_grpo.cli.main import main

from motion_grpo import Motion
from motion_grpo.body import Skeleton, cpf_of
from motion_grpo.models import loading
from tests.tiny import tiny_pipeline
from tests.trajectory.helpers import aria_csv, csv_of, in_axes, walk
from tests.trajectory.readers.test_hands import write_csv
from tests.trajectory.test_hand_observations import everywhere, recording

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
    assert run(monkeypatch, "recover", head, "-o", output, "--picture", picture) == 0
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
        (("HEAD", "-o", "OUT/x.fbx"), "cannot be written as .fbx"),
        (("HEAD", "-o", "OUT/missing/x.npz"), "does not exist"),
        (("HEAD", "-o", "OUT/x.npz", "--picture", "OUT/x.gif"), "png"),
        (("HEAD", "-o", "OUT/x.npz", "--checkpoint", "OUT"), "model_index.json"),
        (("HEAD", "-o", "OUT/x.npz", "--stature", "175"), "stature must be 0.8 to 2.5 m, got 175; give it in meters"),
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


def write(path: Path, header: str, poses: np.ndarray, times: np.ndarray) -> Path:
    path.write_text(csv_of(header, poses, times))
    return path


HEADER = "timestamp,x,y,z,qx,qy,qz,qw"


def head_of(motion: Motion) -> np.ndarray:
    return cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))[1].numpy()


@pytest.mark.parametrize("axes", ["openxr", "unity", "camera", "right up back / right down forward"])
def test_axes_are_recognized_and_can_be_given(axes, monkeypatch, tmp_path, capsys) -> None:
    poses, times = walk(30, turn=0.8)
    head = write(tmp_path / "head.csv", HEADER, in_axes(poses, axes), times)
    output = tmp_path / "x.npz"
    assert run(monkeypatch, "recover", head, "-o", output) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--convention '" in error
    assert "load_trajectory" not in error
    assert not output.exists()
    assert run(monkeypatch, "recover", head, "-o", output, "--convention", axes, "--floor-height", 0, "--steps", 1) == 0
    np.testing.assert_allclose(head_of(Motion.load(output)), poses[:, :3, 3], atol=1e-4)


def test_a_file_without_times_needs_a_rate(monkeypatch, tmp_path, capsys) -> None:
    head = write(tmp_path / "head.csv", "x,y,z,qx,qy,qz,qw", *walk(60))
    output = tmp_path / "x.npz"
    assert run(monkeypatch, "recover", head, "-o", output) == 1
    assert "--fps says when" in capsys.readouterr().err
    assert run(monkeypatch, "recover", head, "-o", output, "--fps", 60, "--floor-height", 0, "--steps", 1) == 0
    assert len(Motion.load(output)) == 30


def test_worlds_are_chosen_or_split(monkeypatch, tmp_path, capsys) -> None:
    lines = aria_csv(*walk(60))
    lines[41:] = [line.replace("map-1", "map-2") for line in lines[41:]]
    head, output = tmp_path / "closed_loop_trajectory.csv", tmp_path / "x.npz"
    head.write_text("\n".join(lines))
    own_axes = ("--T-device-cpf", "1 0 0 0  0 0 0", "--steps", 1)
    assert run(monkeypatch, "recover", head, "-o", output) == 1
    assert "--world 'map-1', or each by itself with --split" in capsys.readouterr().err
    assert run(monkeypatch, "recover", head, "-o", output, "--world", "map-2", *own_axes) == 0
    assert len(Motion.load(output)) == 20
    assert run(monkeypatch, "recover", head, "-o", output, "--split", *own_axes) == 0
    assert [len(Motion.load(tmp_path / f"x_{i}.npz")) for i in range(2)] == [40, 20]


def test_the_saved_rate_is_the_one_that_tools_expect(monkeypatch, tmp_path) -> None:
    poses, _ = walk(200, turn=2.0)
    head = write(tmp_path / "head.csv", HEADER, poses, 1_700_000_000 + (np.arange(200) / 72).round(6))
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "x.npz", "--floor-height", 0, "--steps", 1) == 0
    assert np.load(tmp_path / "x.npz")["mocap_framerate"] == 30.0


def test_what_is_only_estimated_is_said_at_the_end(monkeypatch, tmp_path, capsys) -> None:
    head = write(tmp_path / "head.csv", HEADER, *walk(30, turn=1.0))
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "x.npz", "--steps", 1) == 0
    said = capsys.readouterr()
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("warning: The floor of ")
    assert "--floor-height." in last
    assert "(estimated from the head), which --floor-height corrects" in said.out
    assert run(monkeypatch, "recover", EXAMPLES / "brisk_walk.csv", "-o", tmp_path / "x.npz", "--steps", 1) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert "floor at z = 0.000 m (given);" in said.out


def test_ends_with_the_critics_verdict_where_it_is_installed(monkeypatch, tmp_path, capsys) -> None:
    head = EXAMPLES / "brisk_walk.csv"
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "x.npz", "--steps", 1) == 0
    verdict = capsys.readouterr().out.strip().splitlines()[-1]
    assert "the critic finds it 0." in verdict
    assert "implausible" in verdict
    assert " s" in verdict
    monkeypatch.setattr(loading, "_EMBEDDED", tmp_path)
    assert run(monkeypatch, "recover", head, "-o", tmp_path / "x.npz", "--steps", 1) == 0
    assert "the critic finds" not in capsys.readouterr().out


def test_guidance_says_what_it_did(monkeypatch, tmp_path, capsys) -> None:
    arguments = ("recover", EXAMPLES / "look_around.csv", "--steps", 2, "-o")
    assert run(monkeypatch, *arguments, tmp_path / "plain.npz") == 0
    assert "guidance: cost" not in capsys.readouterr().out
    assert run(monkeypatch, *arguments, tmp_path / "guided.npz", "--guidance", "no_hands") == 0
    assert "guidance: cost" in capsys.readouterr().out
    floored = tmp_path / "floored.npz"
    assert run(monkeypatch, *arguments, floored, "--guidance", "no_hands", "--guidance-floor") == 0
    lowest = [Motion.load(path).joints[..., 2].min() for path in (tmp_path / "guided.npz", floored)]
    assert lowest[1] > lowest[0] or lowest[0] > 0
    assert run(monkeypatch, *arguments, tmp_path / "guided.npz", "--guidance", "no_feet") == 1
    assert "guidance mode is 'no_feet'" in capsys.readouterr().err
