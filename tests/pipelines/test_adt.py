"""An Aria Digital Twin sequence from its folder to a motion whose hands are where the glasses saw them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from motion_grpo.cli import data
from motion_grpo.cli.recover import recover
from typer import Typer
from typer.testing import CliRunner

from motion_grpo import Motion
from motion_grpo.body import JOINT_NAMES, WRIST_JOINTS
from motion_grpo.data import load_motions
from motion_grpo.trajectory import default_T_device_cpf
from tests.conftest import shared_path
from tests.trajectory.helpers import aria_csv, walk

FRAMES = 60
WRISTS = np.array([[0.25, -0.35, 0.3], [-0.2, -0.3, 0.35]])
"""Left and right in the CPF: hands before the chest, palms down."""
Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""From the library's world to ADT's."""


def adt_sequence(folder: Path) -> np.ndarray:
    """All that an ADT sequence has of a wearer with markers, and MPS's hand tracking; the head in the z-up world."""
    poses, times = walk(FRAMES, turn=1.0)
    T_cpf_device = np.linalg.inv(default_T_device_cpf().numpy())
    in_adt = np.tile(np.eye(4), (FRAMES, 1, 1))
    in_adt[:, :3] = Y_UP @ poses[:, :3]
    mps = folder / "mps/hand_tracking"
    mps.mkdir(parents=True)
    lines = aria_csv(in_adt @ T_cpf_device, times, gravity=(0, -9.81, 0))
    (folder / "aria_trajectory.csv").write_text("\n".join(lines) + "\n")
    person = {"AssociatedDeviceSerial": "1W", "SkeletonName": "Skeleton_T", "SkeletonId": 7}
    (folder / "skeleton_aria_association.json").write_text(json.dumps({"SkeletonMetadata": [person]}))
    (folder / "metadata.json").write_text(json.dumps({"serial": "1W"}))
    joints = np.tile(in_adt[:, None, :3, 3] - [0.0, 0.1, 0.0], (1, 51, 1)).tolist()
    frames = [{"joints": j, "markers": [], "timestamp_ns": round(t * 1e9)} for j, t in zip(joints, times, strict=True)]
    (folder / "Skeleton_T.json").write_text(json.dumps({"frames": frames}))
    (mps / "wrist_and_palm_poses.csv").write_text(hand_table(times[::3]))
    return poses


def hand_table(times: np.ndarray) -> str:
    """Both hands where `WRISTS` says, in the device's frame, 10 times a second."""
    T = default_T_device_cpf().numpy()
    palms = WRISTS + np.array([0.0, 0.0, 0.085])
    down = T[:3, :3] @ [0.0, -1.0, 0.0]
    columns: dict[str, float] = {}
    for side, wrist, palm in zip(("left", "right"), WRISTS, palms, strict=True):
        columns[f"{side}_tracking_confidence"] = 0.9
        for part, place in (("wrist", wrist), ("palm", palm)):
            columns |= {
                f"t{a}_{side}_{part}_device": v for a, v in zip("xyz", T[:3, :3] @ place + T[:3, 3], strict=True)
            }
            columns |= {f"n{a}_{side}_{part}_device": v for a, v in zip("xyz", down, strict=True)}
    values = ",".join(f"{value:.6f}" for value in columns.values())
    rows = [f"{round(time * 1e6)},{values}" for time in times]
    return "\n".join([",".join(["tracking_timestamp_us", *columns]), *rows]) + "\n"


def run(app: Typer, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def recover_app() -> Typer:
    app = Typer()
    app.command()(recover)
    return app


def test_a_made_sequence(tmp_path, monkeypatch, recover_app) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sequence = tmp_path / "ADT/Apartment_seq1_M1292"
    poses = adt_sequence(sequence)
    run(data.app, "adt", tmp_path / "ADT", "-o", tmp_path / "data")
    [row] = load_motions(tmp_path / "data", "test")
    assert (row["source"], row["id"], row["num_frames"]) == ("adt", "Apartment_seq1_M1292", FRAMES)
    seen = np.asarray(row["hand_observations"], np.float32)
    np.testing.assert_allclose(seen[::3, :, 1:4], np.tile(WRISTS, (FRAMES // 3, 1, 1)), atol=1e-4)
    assert (seen[1::3, :, 0] == 0).all()
    head = np.asarray(row["joints"], np.float32)[:, JOINT_NAMES.index("head")]
    np.testing.assert_allclose(head, poses[:, :3, 3] - [0.0, 0.0, 0.1], atol=1e-4)

    output, picture = tmp_path / "walk.npz", tmp_path / "walk.png"
    hands = ("--hands", sequence, "--guidance", "aria_wrist_only")
    said = run(recover_app, sequence / "aria_trajectory.csv", "-o", output, *hands, "--picture", picture)
    assert "guidance: cost" in said
    assert picture.stat().st_size > 10_000
    motion = Motion.load(output)
    there = np.einsum("tij,wj->twi", poses[:, :3, :3], WRISTS) + poses[:, None, :3, 3]
    apart = np.linalg.norm(motion.joints[:, list(WRIST_JOINTS)].numpy() - there, axis=-1)
    assert apart[::3].mean() < 0.02


def test_the_real_sample(tmp_path, monkeypatch, recover_app) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sample = shared_path("samples/aria_adt")
    run(data.app, "adt", sample, "-o", tmp_path / "data", "--min-seconds", 0.1)
    [row] = load_motions(tmp_path / "data", "test")
    output = tmp_path / "adt.npz"
    said = run(recover_app, sample / "aria_trajectory.csv", "-o", output, "--guidance", "no_hands")
    assert "guidance: cost" in said
    motion = Motion.load(output)
    # The body that hangs from the glasses, against the markers that the wearer had: what is known of one second.
    measured = torch.tensor(np.asarray(row["joints"], np.float32))
    known = measured.isfinite().all(-1)
    frames = min(len(motion), len(measured))
    apart = (motion.joints[:frames, :22] - measured[:frames]).norm(dim=-1)[known[:frames]]
    assert known.any()
    assert apart.mean() < 0.25
