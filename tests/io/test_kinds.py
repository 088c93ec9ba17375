"""Files are told apart by what is in them."""

import numpy as np
import pytest

from motion_grpo.io.kinds import kind_of
from tests.body.smplh import write_smplh
from tests.tiny import moving_motion


def test_kinds(tmp_path) -> None:
    motion = moving_motion(2)
    assert kind_of(motion.save(tmp_path / "a.npz")) == "a motion"
    assert kind_of(motion.save(tmp_path / "a.smplx.npz")) == "a motion"
    assert kind_of(motion.save(tmp_path / "a.bvh")).startswith("a BVH recording, which `motion-grpo data bvh` imports")
    assert kind_of(write_smplh(tmp_path / "model.npz")) == "the body of an SMPL model"
    np.savez(tmp_path / "head.npz", T_world_cpf=np.zeros((2, 7)), timestamps=np.zeros(2))
    assert kind_of(tmp_path / "head.npz") == "a head trajectory"
    np.savez(tmp_path / "other.npz", x=np.zeros(2), y=np.zeros(2))
    assert kind_of(tmp_path / "other.npz") == "an archive of x, y"
    (tmp_path / "head.csv").write_text("time,x\n")
    assert kind_of(tmp_path / "head.csv") == "a head trajectory"
    (tmp_path / "nothing.npz").touch()
    assert kind_of(tmp_path / "nothing.npz") == "an empty file"
    (tmp_path / "a.xyz").write_text("?")
    assert kind_of(tmp_path / "a.xyz") == "a .xyz file, which this library does not know"
    with pytest.raises(FileNotFoundError, match=r"gone\.npz does not exist"):
        kind_of(tmp_path / "gone.npz")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model_index.json", "a saved pipeline, for --checkpoint"),
        ("slam/closed_loop_trajectory.csv", "a head trajectory"),
        ("val/0.parquet", "a data set of motion"),
        ("note.md", "a folder without anything that this library reads"),
    ],
)
def test_folders(name: str, kind: str, tmp_path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert kind_of(tmp_path) == kind
