"""EgoAllo's preprocessed file, written here in its exact layout: groups, array names, shapes and chunks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from motion_grpo.body import PosedBody, Skeleton, cpf_of, forward_kinematics
from motion_grpo.body.betas import load_skeleton
from motion_grpo.data.clips import ClipError
from motion_grpo.data.importers.egoallo_hdf5 import EgoAlloHdf5Importer
from motion_grpo.data.preprocessing import prepare
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.motion import Motion
from tests.data.importers.recordings import kicking

h5py = pytest.importorskip("h5py")


def arrays_of(motion: Motion, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """What ``EgoTrainingData.load_from_npz`` makes of a motion, its mask left out."""
    rotmats = torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], dim=1)
    posed = forward_kinematics(skeleton.rest_joints(motion.betas)[:22], rotmats, motion.root_positions)
    R, p = cpf_of(PosedBody(posed.rotmats, posed.joints), skeleton.cpf_offset(motion.betas))
    hands = torch.eye(3).expand(len(motion), 30, 3, 3) if motion.hand_rotmats is None else motion.hand_rotmats
    identity = np.tile(np.float32([1, 0, 0, 0, 0, 0, 0]), (len(motion), 1))
    return {
        "T_world_root": torch.cat([matrix_to_wxyz(motion.root_rotmats), motion.root_positions], dim=-1).numpy(),
        "contacts": motion.contacts.numpy(),
        "betas": motion.betas[None].numpy(),
        "body_quats": matrix_to_wxyz(motion.body_rotmats).numpy(),
        "T_cpf_tm1_cpf_t": identity,
        "T_world_cpf": torch.cat([matrix_to_wxyz(R), p], dim=-1).numpy(),
        "height_from_floor": p[:, 2:].numpy(),
        "joints_wrt_cpf": ((posed.joints[:, 1:] - p[:, None]) @ R).numpy(),
        "hand_quats": matrix_to_wxyz(hands).numpy(),
    }


def write(path: Path, groups: dict[str, dict[str, np.ndarray]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in groups.items():
            group = file.create_group(name)
            for key, value in arrays.items():
                chunks = value.shape if key == "betas" else (min(32, len(value)), *value.shape[1:])
                group.create_dataset(key, data=value, chunks=chunks)
    return path


@pytest.fixture
def motion() -> Motion:
    return prepare(kicking(4.0, 120.0))


@pytest.fixture
def arrays(motion: Motion) -> dict[str, np.ndarray]:
    return arrays_of(motion, Skeleton.default())


def test_groups_are_clips_in_the_paper_s_splits(tmp_path, arrays):
    names = [
        "CMU/01/01_01_poses.npz",
        "CMU/01/01_01_poses_reflect.npz",
        "SSM_synced/s/jump_poses.npz",
        "SFU/x_poses.npz",
    ]
    path = write(tmp_path / "data.hdf5", dict.fromkeys(names, arrays))

    jobs = EgoAlloHdf5Importer(path).jobs()

    assert [(job.id, job.split, job.extra["subject"]) for job in jobs] == [
        ("CMU/01/01_01", "train", "CMU/01"),
        ("SFU/x", "val", ""),
        ("SSM_synced/s/jump", "test", "SSM_synced/s"),
    ]
    ids = [job.id for job in EgoAlloHdf5Importer(path, mirrored=True).jobs()]
    assert ids[:2] == ["CMU/01/01_01", "CMU/01/01_01_reflect"]


def test_the_motion_comes_back_on_the_body_it_was_made_with(tmp_path, motion, body_models):
    folder, *_ = body_models
    skeleton = load_skeleton(folder, "neutral")
    path = write(tmp_path / "data.hdf5", {"CMU/01/01_01_poses.npz": arrays_of(motion, skeleton)})
    importer = EgoAlloHdf5Importer(path, body_models=folder)

    (clip,) = importer.convert(importer.jobs()[0])

    assert clip.motion.skeleton is skeleton
    assert clip.motion.hand_rotmats is None
    torch.testing.assert_close(clip.motion.root_positions, motion.root_positions)
    torch.testing.assert_close(clip.motion.body_rotmats, motion.body_rotmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.motion.contacts, motion.contacts)
    torch.testing.assert_close(clip.motion.timestamps, motion.timestamps)


def test_without_body_files_the_default_body_takes_the_shape_of_the_bones(tmp_path):
    betas = torch.zeros(16)
    betas[0] = 1.4
    recording = kicking(4.0, 120.0)
    recording = replace(recording, betas=betas)
    motion = prepare(recording)
    path = write(tmp_path / "data.hdf5", {"CMU/01/01_01_poses.npz": arrays_of(motion, Skeleton.default())})
    importer = EgoAlloHdf5Importer(path)

    (clip,) = importer.convert(importer.jobs()[0])

    assert float(clip.motion.betas[0]) == pytest.approx(1.4, abs=0.2)
    assert float((clip.motion.joints[:, :22] - motion.joints[:, :22]).norm(dim=-1).max()) < 0.005
    standing = motion.contacts[:, 10] > 0.5
    torch.testing.assert_close(clip.motion.joints[standing, 11, 2], motion.joints[standing, 11, 2], atol=2e-3, rtol=0)


def test_hands_are_kept_when_they_move(tmp_path, motion, arrays):
    turned = arrays["hand_quats"].copy()
    turned[5:, 3] = [0.8, 0.6, 0.0, 0.0]
    without = {key: value for key, value in arrays.items() if key != "hand_quats"}
    path = write(
        tmp_path / "data.hdf5",
        {"CMU/a_poses.npz": arrays | {"hand_quats": turned}, "CMU/b_poses.npz": arrays, "CMU/c_poses.npz": without},
    )
    importer = EgoAlloHdf5Importer(path)

    a, b, c = (importer.convert(job)[0].motion.hand_rotmats for job in importer.jobs())

    torch.testing.assert_close(a[5, 3, 1:, 1], torch.tensor([0.28, 0.96]))
    assert b is None
    assert c is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contacts": None}, "no contacts"),
        ({"betas": np.zeros((1, 10), np.float32)}, r"betas has shape \(1, 10\)"),
        ({"body_quats": np.zeros((3, 21, 4), np.float32)}, r"body_quats has shape \(3, 21, 4\)"),
        ({"T_world_cpf": "nan"}, "T_world_cpf holds numbers that are not finite"),
    ],
)
def test_broken_groups_say_what_is_wrong(tmp_path, arrays, changes, message):
    for key, value in changes.items():
        if value is None:
            del arrays[key]
        else:
            arrays[key] = np.full_like(arrays[key], np.nan) if isinstance(value, str) else value
    importer = EgoAlloHdf5Importer(write(tmp_path / "data.hdf5", {"CMU/a_poses.npz": arrays}))

    with pytest.raises(ValueError, match=message) as error:
        importer.convert(importer.jobs()[0])
    assert not isinstance(error.value, ClipError)


def test_what_is_left_out(tmp_path, arrays):
    one = {key: value[:1] for key, value in arrays.items()}
    path = write(tmp_path / "data.hdf5", {"CMU/a_poses.npz": one, "GRAB/b_poses.npz": arrays})
    importer = EgoAlloHdf5Importer(path)

    for job, reason in zip(importer.jobs(), ("1 frame", "none of the paper's splits"), strict=True):
        with pytest.raises(ClipError, match=reason):
            importer.convert(job)


def test_files_that_are_not_egoallo_s(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        EgoAlloHdf5Importer(tmp_path / "missing.hdf5").jobs()
    (tmp_path / "text.hdf5").write_text("text")
    with pytest.raises(ValueError, match="no readable HDF5"):
        EgoAlloHdf5Importer(tmp_path / "text.hdf5").jobs()
    with pytest.raises(ValueError, match="no group with T_world_root"):
        EgoAlloHdf5Importer(write(tmp_path / "other.hdf5", {"a": {}})).jobs()
