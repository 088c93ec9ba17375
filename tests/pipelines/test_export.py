"""The commands that a user types to take a motion elsewhere, to compare it and to ask what a file is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from motion_grpo import Motion
from motion_grpo.body import Skeleton
from motion_grpo.data import FEATURES, Clip, clip_to_row
from motion_grpo.io.bvh import read_bvh
from tests.body.smplh import write_smplh
from tests.pipelines.test_recover import EXAMPLES, run
from tests.tiny import moving_motion

WALK = EXAMPLES / "brisk_walk.npz"


@pytest.mark.parametrize("suffix", [".bvh", ".glb", ".csv", ".smplx.npz"])
def test_export_writes_what_the_suffix_says(suffix: str, monkeypatch, tmp_path, capsys) -> None:
    assert run(monkeypatch, "export", WALK, tmp_path / f"walk{suffix}") == 0
    written = f"wrote {tmp_path / f'walk{suffix}'}: {Motion.load(WALK)!r}"
    assert capsys.readouterr().out.strip() == written
    assert [path.name for path in tmp_path.iterdir()] == [f"walk{suffix}"]


def test_smplx_files_are_read_like_ours(monkeypatch, tmp_path) -> None:
    walk = Motion.load(WALK)
    walk.save(tmp_path / "walk.smplx.npz")
    assert run(monkeypatch, "export", tmp_path / "walk.smplx.npz", tmp_path / "walk.bvh") == 0
    read = read_bvh(tmp_path / "walk.bvh")
    assert float((read.p("pelvis")[:, 1] - walk.above_floor().joints[:, 0, 2]).abs().max()) < 0.005


def test_rows_of_data_sets_export_likewise(monkeypatch, tmp_path, capsys) -> None:
    clips = [Clip(id=f"walks/{i}", source="walks", motion=moving_motion(40, seed=i), split="val") for i in range(2)]
    (tmp_path / "data" / "val").mkdir(parents=True)
    rows = Dataset.from_list([clip_to_row(clip) for clip in clips], features=FEATURES)
    rows.to_parquet(tmp_path / "data" / "val" / "0.parquet")
    assert run(monkeypatch, "export", tmp_path / "data", tmp_path / "a.bvh", "--clip", "walks/1") == 0
    read = read_bvh(tmp_path / "a.bvh")
    assert float((read.p("pelvis")[:, 1] - clips[1].motion.joints[:, 0, 2]).abs().max()) < 1e-4
    assert run(monkeypatch, "export", tmp_path / "data", tmp_path / "b.bvh", "--clip", "runs/0") == 1
    assert "the split val of" in capsys.readouterr().err
    assert not (tmp_path / "b.bvh").exists()


def test_the_surface_of_a_licensed_body(monkeypatch, tmp_path, capsys) -> None:
    model = write_smplh(tmp_path / "model.npz")
    replace(moving_motion(3), skeleton=Skeleton.from_smplh(model)).save(tmp_path / "walk.npz")
    assert run(monkeypatch, "export", tmp_path / "walk.npz", tmp_path / "walk.glb", "--smplh", model) == 0
    assert (tmp_path / "walk.glb").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        (WALK, "walk.fbx", "a motion cannot be written as .fbx; use one of .npz"),
        (WALK, "nowhere/walk.bvh", "nowhere does not exist; make it first"),
        (WALK.with_suffix(".csv"), "walk.bvh", "is no motion: it seems to be a head trajectory"),
        ("gone.npz", "walk.bvh", "gone.npz does not exist"),
    ],
)
def test_bad_input_is_one_sentence(source, output: str, message: str, monkeypatch, tmp_path, capsys) -> None:
    assert run(monkeypatch, "export", source, tmp_path / output) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


# ---- compare


def test_compare_says_how_far_apart_two_motions_are(monkeypatch, tmp_path, capsys) -> None:
    walk = Motion.load(WALK)
    moved = replace(walk, root_positions=walk.root_positions + torch.tensor([0.03, 0.0, 0.04]))
    moved.save(tmp_path / "moved.npz")
    arguments = (tmp_path / "moved.npz", WALK, "--json", "--picture", tmp_path / "both.png")
    assert run(monkeypatch, "compare", *arguments) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["mpjpe"] == pytest.approx(50, abs=0.01)
    assert values["pa_mpjpe"] == pytest.approx(0, abs=0.01)
    assert values["L_wrist"] == pytest.approx(50, abs=0.01)
    assert values["seconds"] == pytest.approx(float(walk.timestamps[-1] - walk.timestamps[0]))
    assert np.asarray(Image.open(tmp_path / "both.png")).std() > 10
    assert run(monkeypatch, "compare", tmp_path / "moved.npz", WALK) == 0
    shown = capsys.readouterr().out
    assert "moved.npz against brisk_walk.npz" in shown
    assert "50.0 mm" in shown


def test_compare_wants_a_shared_time(monkeypatch, tmp_path, capsys) -> None:
    walk = Motion.load(WALK)
    replace(walk, timestamps=walk.timestamps + 1000).save(tmp_path / "later.npz")
    assert run(monkeypatch, "compare", tmp_path / "later.npz", WALK) == 1
    assert "the motions share no time" in capsys.readouterr().err


# ---- info


def told(monkeypatch, capsys, *arguments: Path | str) -> dict:
    assert run(monkeypatch, "info", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_info_of_a_motion(monkeypatch, tmp_path, capsys) -> None:
    walk = Motion.load(WALK)
    facts = told(monkeypatch, capsys, WALK)
    assert (facts["kind"], facts["frames"], facts["up"]) == ("a motion", len(walk), "+z")
    assert facts["stature_m"] == pytest.approx(float(walk.body.stature(walk.betas)))
    y_up = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    turned = replace(walk, root_rotmats=y_up @ walk.root_rotmats, root_positions=walk.root_positions @ y_up.mT)
    facts = told(monkeypatch, capsys, turned.save(tmp_path / "y_up.npz"))
    assert facts["up"] == "+y"
    assert "turn it" in facts["use"]


def test_info_of_a_trajectory_and_of_others(monkeypatch, tmp_path, capsys) -> None:
    facts = told(monkeypatch, capsys, WALK.with_suffix(".csv"))
    assert facts["kind"] == "a head trajectory"
    assert 1.2 < facts["eyes_over_floor_m"] < 2.0
    assert facts["use"] == f"motion-grpo recover: {len(Motion.load(WALK))} frames at 30 fps"
    (tmp_path / "a.fbx").write_text("FBX")
    assert told(monkeypatch, capsys, tmp_path / "a.fbx")["kind"] == "an FBX file; save it as BVH in Blender"
    assert run(monkeypatch, "info", WALK) == 0
    assert "a motion" in capsys.readouterr().out


# ---- view


def test_view_writes_a_scene(monkeypatch, tmp_path, capsys) -> None:
    walk = Motion.load(WALK)
    short = {name: getattr(walk, name)[:20] for name in ("root_rotmats", "root_positions", "body_rotmats", "contacts")}
    truth = replace(walk, **short, timestamps=walk.timestamps[:20]).save(tmp_path / "truth.npz")
    options = ("--truth", truth, "--trajectory", WALK.with_suffix(".csv"), "--side-by-side")
    assert run(monkeypatch, "view", WALK, *options, "--export", tmp_path / "scene.html") == 0
    page = (tmp_path / "scene.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "__VISER_EMBED_DATA__" in page
    assert run(monkeypatch, "view", WALK, "--export", tmp_path / "scene.txt") == 1
    assert "a scene is written as .html" in capsys.readouterr().err
