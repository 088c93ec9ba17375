"""The devices' logs: the script remakes them, and each is read as the walk that it was made of."""

import subprocess
import sys

import numpy as np
import pytest

from motion_grpo import HeadTrajectory, load_trajectory
from tests.packaging.environment import ROOT

EXAMPLES = ROOT / "examples"
LOGS = {
    "aria_gen1": {"floor_height": -1.65},
    "aria_gen2": {"floor_height": -1.65, "device": "gen2"},
    "adt": {},
    "quest.csv": {"convention": "openxr"},
    "unity.csv": {"convention": "unity"},
    "arkit.csv": {"convention": "arkit"},
    "vision_pro.csv": {"convention": "openxr"},
    "tum.txt": {"convention": "camera"},
    "euroc.csv": {"convention": "forward left up / up right forward"},
    "plain.csv": {},
}


def same_walk(read: HeadTrajectory) -> None:
    """The walk of the example, turned about the vertical and moved at most; heights over the floor are the same."""
    true = load_trajectory(EXAMPLES / "brisk_walk.csv")
    assert len(read) == len(true)
    turn = read.R_world_cpf[0] @ true.R_world_cpf[0].mT
    assert turn[2, 2] > 0.999999
    assert (turn @ true.R_world_cpf - read.R_world_cpf).abs().max() < 1e-4
    moved, truly = (walk.p_world_cpf - walk.p_world_cpf[0] for walk in (read, true))
    assert (truly @ turn.mT - moved).abs().max() < 1e-4
    assert np.allclose(read.timestamps.diff(), true.timestamps.diff(), atol=1e-5)


@pytest.mark.parametrize("name", LOGS)
def test_each_log_is_the_walk(name):
    options = {"floor_height": 0.0} | LOGS[name]
    same_walk(load_trajectory(EXAMPLES / "devices" / name, **options))


def test_every_log_is_read_or_shown_in_the_docs():
    names = {path.relative_to(EXAMPLES / "devices").parts[0] for path in (EXAMPLES / "devices").rglob("*.*")}
    assert names == LOGS.keys() | {"steamvr.csv"}


def test_matrices_of_steamvr_are_the_walk():
    table = np.loadtxt(EXAMPLES / "devices" / "steamvr.csv", delimiter=",", skiprows=1)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = table[:, 1:].reshape(-1, 3, 4)
    options = {"timestamps": table[:, 0], "floor_height": 0.0}
    same_walk(HeadTrajectory.from_convention(poses, "openxr", **options))


def test_the_script_remakes_the_logs(tmp_path):
    script = EXAMPLES / "make_device_logs.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    for path in (EXAMPLES / "devices").rglob("*.*"):
        assert (tmp_path / path.relative_to(EXAMPLES / "devices")).read_text() == path.read_text(), path.name
