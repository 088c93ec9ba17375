import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import smplx
import torch
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.body import Skeleton
from motion_grpo.geometry.rotations import project_to_rotation, rotation_6d
from motion_grpo.motion import Motion, MotionState, StateLayout, check_output_path
from motion_grpo.motion.formats import FORMATS, numbered
from tests.body.smplh import Unpickled, smplh_arrays, write_smplh
from tests.tiny import moving_motion

LAYOUTS = {
    StateLayout("matrix", True): 496,
    StateLayout("matrix", False): 226,
    StateLayout("6d", True): 343,
    StateLayout("6d", False): 163,
}
FIELDS = ("root_rotmats", "root_positions", "body_rotmats", "betas", "contacts", "timestamps", "hand_rotmats")


def rotations(*batch: int) -> Tensor:
    return roma.random_rotmat(batch)


def state(hands: bool, *batch: int) -> MotionState:
    return MotionState(
        betas=torch.randn(*batch, 16),
        body_rotmats=rotations(*batch, 21),
        contacts=torch.rand(*batch, 21),
        hand_rotmats=rotations(*batch, 30) if hands else None,
    )


# ---- the state that is denoised


@pytest.mark.parametrize(("layout", "dim"), LAYOUTS.items())
def test_pack_and_unpack_are_inverse(layout: StateLayout, dim: int) -> None:
    before = state(layout.include_hands, 2, 5)
    packed = before.pack(layout)
    assert layout.dim == dim
    assert packed.shape == (2, 5, dim)
    after = MotionState.unpack(packed, layout)
    for name in ("betas", "body_rotmats", "contacts"):
        assert_close(getattr(after, name), getattr(before, name))
    if layout.include_hands:
        assert_close(after.hand_rotmats, before.hand_rotmats)
    else:
        assert after.hand_rotmats is None
    assert_close(after.pack(layout), packed)
    assert_close(MotionState.unpack(packed[0, 0, None], layout).contacts, before.contacts[0, :1])


def test_modalities_are_in_egoallos_order() -> None:
    one = state(True, 1)
    packed = one.pack(StateLayout())[0]
    assert list(StateLayout().sizes) == ["betas", "body_rotmats", "contacts", "hand_rotmats"]
    assert_close(packed[:16], one.betas[0])
    assert_close(packed[16:25], one.body_rotmats[0, 0].flatten())  # row-major
    assert_close(packed[205:226], one.contacts[0])
    assert_close(packed[226 + 9 * 29 :], one.hand_rotmats[0, 29].flatten())
    short = one.pack(StateLayout("6d", include_hands=False))[0]
    assert_close(short[16:22], rotation_6d(one.body_rotmats[0, 0]))
    assert_close(short[142:163], one.contacts[0])
    assert one.local_rotmats.shape == (1, 51, 3, 3)
    assert_close(one.local_rotmats[:, 21:], one.hand_rotmats)
    assert state(False, 1).local_rotmats.shape == (1, 21, 3, 3)


@pytest.mark.parametrize("rotations", ["matrix", "6d"])
def test_unpacked_rotations_are_proper_whatever_the_network_says(rotations: str) -> None:
    layout = StateLayout(rotations)
    unpacked = MotionState.unpack(torch.randn(3, 4, layout.dim), layout)
    R = unpacked.local_rotmats
    assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0.0, atol=1e-5)
    assert_close(torch.linalg.det(R), torch.ones(3, 4, 51))


def test_unpacking_as_egoallo_does_projects_the_body_only() -> None:
    x = torch.randn(3, 4, 496)
    blocks, hands = x[..., 16:205].unflatten(-1, (21, 3, 3)), x[..., 226:].unflatten(-1, (30, 3, 3))
    theirs = MotionState.unpack(x, StateLayout(), allow_reflection=True)
    assert_close(theirs.body_rotmats, project_to_rotation(blocks, allow_reflection=True))
    assert_close(theirs.hand_rotmats, hands)
    assert (torch.linalg.det(theirs.body_rotmats) < 0).any()
    raw = MotionState.unpack(x, StateLayout(), project=False)
    assert_close(raw.body_rotmats, blocks)
    assert_close(raw.hand_rotmats, hands)


# ---- what a user gets


def with_hands(motion: Motion) -> Motion:
    return replace(motion, hand_rotmats=roma.rotvec_to_rotmat(0.3 * torch.randn(len(motion), 30, 3)))


def test_joints_and_trans() -> None:
    motion = moving_motion(6)
    assert motion.joints.shape == (6, 52, 3)
    assert_close(motion.joints[:, 0], motion.root_positions)
    assert_close(motion.trans + Skeleton.default().rest_joints(motion.betas)[0], motion.root_positions)
    assert motion.body is Skeleton.default()
    assert len(motion) == 6
    flat = replace(motion, hand_rotmats=torch.eye(3).expand(6, 30, 3, 3))
    assert_close(flat.joints, motion.joints)
    assert not torch.allclose(with_hands(motion).joints[:, 22:], motion.joints[:, 22:])


@pytest.mark.parametrize("fps", [30.0, 120.0])
def test_fps(fps: float, tmp_path) -> None:
    motion = moving_motion(10, fps=fps)
    assert motion.fps == pytest.approx(fps)
    assert Motion.load(motion.save(tmp_path / "a.npz")).fps == pytest.approx(fps)


def test_a_single_frame_has_a_rate_and_can_be_saved(tmp_path) -> None:
    two = moving_motion(2)
    frames = {name: getattr(two, name)[:1] for name in ("root_rotmats", "root_positions", "body_rotmats")}
    motion = replace(two, **frames, contacts=two.contacts[:1], timestamps=two.timestamps[:1])
    assert motion.fps == 30.0
    assert_close(Motion.load(motion.save(tmp_path / "pose.npz")).joints, motion.joints, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("hands", [True, False])
def test_save_and_load_round_trip(hands: bool, tmp_path) -> None:
    motion = replace(moving_motion(8), floor_height=-0.3, timestamps=torch.arange(8).double() / 30 + 17.25)
    motion = with_hands(motion) if hands else motion
    loaded = Motion.load(str(motion.save(tmp_path / "walk.npz")))
    assert (loaded.hand_rotmats is None) == (not hands)
    for name in FIELDS if hands else FIELDS[:-1]:
        assert_close(getattr(loaded, name), getattr(motion, name), rtol=0.0, atol=1e-6)
    assert loaded.floor_height == motion.floor_height
    assert_close(loaded.joints, motion.joints, rtol=0.0, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.npz"]


def test_file_is_amass(tmp_path) -> None:
    motion = with_hands(moving_motion(8))
    with np.load(motion.save(tmp_path / "walk.npz"), allow_pickle=False) as file:
        arrays = dict(file)
    shapes = {key: arrays[key].shape for key in ("poses", "trans", "betas", "contacts", "mocap_framerate")}
    assert shapes == {"poses": (8, 156), "trans": (8, 3), "betas": (16,), "contacts": (8, 21), "mocap_framerate": ()}
    assert {arrays[key].dtype for key in ("poses", "trans", "betas", "contacts")} == {np.dtype("float32")}
    assert str(arrays["gender"]) == "neutral"
    assert str(arrays["skeleton"]) == "mannequin-x-symmetric"
    assert float(arrays["mocap_framerate"]) == pytest.approx(30.0)
    rotmats = roma.rotvec_to_rotmat(torch.from_numpy(arrays["poses"]).unflatten(1, (52, 3)))
    assert_close(rotmats, motion.local_rotmats, rtol=0.0, atol=1e-6)


def test_files_of_the_body_before_it_was_symmetric_are_read_with_it(tmp_path) -> None:
    motion = replace(moving_motion(8), skeleton=Skeleton.mannequin_x())
    loaded = Motion.load(motion.save(tmp_path / "old.npz"))
    assert loaded.body is Skeleton.mannequin_x()
    assert_close(loaded.joints, motion.joints, rtol=0.0, atol=2e-5)


def test_saved_file_puts_smplx_in_the_same_place(tmp_path) -> None:
    path = write_smplh(tmp_path / "model.npz")
    motion = replace(with_hands(moving_motion(5)), skeleton=Skeleton.from_smplh(path), betas=torch.randn(16))
    with np.load(motion.save(tmp_path / "walk.npz")) as file:
        poses, trans, betas = (torch.from_numpy(file[key]) for key in ("poses", "trans", "betas"))
    model = smplx.SMPLH(str(path), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=5)
    model.shapedirs = torch.from_numpy(smplh_arrays()["shapedirs"])  # smplx would cut sixteen to ten
    with torch.no_grad():
        joints = model(
            betas=betas.expand(5, 16),
            global_orient=poses[:, :3],
            body_pose=poses[:, 3:66],
            left_hand_pose=poses[:, 66:111],
            right_hand_pose=poses[:, 111:],
            transl=trans,
        ).joints
    assert_close(joints[:, 0], motion.root_positions, rtol=0.0, atol=1e-5)
    assert_close(joints[:, :52], motion.joints, rtol=0.0, atol=2e-5)
    loaded = Motion.load(tmp_path / "walk.npz", motion.skeleton)
    assert_close(loaded.joints, motion.joints, rtol=0.0, atol=2e-5)
    assert loaded.body is motion.skeleton


# ---- anybody's files


def amass(frames: int = 4, **changes: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "poses": np.random.default_rng(0).normal(size=(frames, 156)) * 0.2,
        "trans": np.ones((frames, 3)),
        "betas": np.full(16, 0.1),
        "gender": np.array(b"female"),
        "mocap_framerate": np.array(120.0),
        "dmpls": np.zeros((frames, 8)),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def written(path: Path, **changes: np.ndarray) -> Path:
    np.savez(path, **amass(**changes))
    return path


def test_reads_a_file_of_amass(tmp_path) -> None:
    motion = Motion.load(written(tmp_path / "a.npz"))
    assert motion.fps == pytest.approx(120.0)
    assert motion.timestamps[0] == 0
    assert motion.floor_height == 0
    assert motion.hand_rotmats is not None
    assert not motion.contacts.any()
    assert_close(motion.trans, torch.ones(4, 3))


def test_reads_other_spellings_and_lengths(tmp_path) -> None:
    motion = Motion.load(
        written(tmp_path / "a.npz", mocap_framerate=None, mocap_frame_rate=np.array(60), betas=np.ones((1, 10)))
    )
    assert motion.fps == pytest.approx(60.0)
    assert_close(motion.betas, torch.tensor([1.0] * 10 + [0.0] * 6))
    assert Motion.load(written(tmp_path / "b.npz", mocap_framerate=None)).fps == pytest.approx(30.0)
    assert_close(Motion.load(written(tmp_path / "c.npz", betas=np.arange(300))).betas, torch.arange(16.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None, "trans": None}, r"no AMASS motion: it has no poses, trans\."),
        ({"betas": None}, r"has no betas\."),
        ({"poses": np.zeros((4, 159))}, r"poses has shape \(4, 159\).*SMPL-H needs \(frames, 156\)"),
        ({"poses": np.zeros((4, 52, 3))}, r"\(4, 52, 3\)"),
        ({"trans": np.zeros((5, 3))}, r"trans \(5, 3\)"),
        ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, r"\(0, 156\)"),
        ({"mocap_framerate": np.array(0.0)}, r"mocap_framerate is 0\.0"),
        ({"mocap_framerate": np.array(np.nan)}, "mocap_framerate is nan"),
        ({"timestamps": np.arange(5.0)}, r"timestamps has shape \(5,\); 4 frames need \(4,\)"),
        ({"contacts": np.zeros((4, 22))}, r"contacts has shape \(4, 22\)"),
    ],
)
def test_files_that_are_no_smplh_motion_are_refused(changes: dict, message: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        Motion.load(written(tmp_path / "a.npz", **changes))


def test_objects_are_never_unpickled(tmp_path) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Unpickled(trace)], dtype=object)
    with pytest.raises(ValueError, match=r"poses\.npz is not a readable npz file"):
        Motion.load(written(tmp_path / "poses.npz", poses=objects))
    # Some releases carry objects beside the arrays that matter; they are left alone.
    assert len(Motion.load(written(tmp_path / "extra.npz", markers_latent_vids=objects))) == 4
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "npy", "folder"])
def test_damaged_files_are_refused_by_name(damage: str, tmp_path) -> None:
    path = tmp_path / "walk.npz"
    if damage == "folder":
        path.mkdir()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "truncated":
        content = written(path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_text("" if damage == "empty" else "not an archive\n")
    with pytest.raises(ValueError, match=r"walk\.npz is not a readable npz file"):
        Motion.load(path)


def test_missing_file_is_not_a_broken_one(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Motion.load(tmp_path / "nowhere.npz")


# ---- where it is written


@pytest.mark.parametrize("name", ["walk.fbx", "walk", "walk.npz.gz"])
def test_unknown_suffixes_are_refused(name: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: a motion cannot be written as .*; use one of \.npz, \.smplx\.npz"):
        moving_motion(2).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_stand_before_the_whole_suffix(suffix: str) -> None:
    assert numbered(Path("a/walk.1" + suffix), 3) == Path("a/walk.1_3" + suffix)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_motion_without_frames_or_with_broken_ones_is_not_written(suffix: str, tmp_path) -> None:
    motion = moving_motion(3)
    per_frame = ("root_rotmats", "root_positions", "body_rotmats", "contacts", "timestamps")
    empty = replace(motion, **{name: getattr(motion, name)[:0] for name in per_frame})
    with pytest.raises(ValueError, match=r"the motion has no frames, so there is nothing to write"):
        empty.save(tmp_path / f"walk{suffix}")
    positions = motion.root_positions.clone()
    positions[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"joints that are not finite in frame 1\."):
        replace(motion, root_positions=positions).save(tmp_path / f"walk{suffix}")
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        moving_motion(2).save(tmp_path / "nowhere" / "walk.npz")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(PermissionError, match=r"folder\.npz cannot be written"):
        check_output_path(tmp_path / "folder.npz")
    (tmp_path / "old.npz").touch()
    locked = {tmp_path / "old.npz"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in locked)
    assert check_output_path(tmp_path / "new.npz") == tmp_path / "new.npz"
    with pytest.raises(PermissionError, match=r"old\.npz cannot be written"):
        check_output_path(tmp_path / "old.npz")
    locked.add(tmp_path)
    with pytest.raises(PermissionError, match=r"new\.npz cannot be written"):
        check_output_path(tmp_path / "new.npz")


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(error: BaseException, tmp_path, monkeypatch) -> None:
    motion = moving_motion(3)
    path = motion.save(tmp_path / "walk.npz")
    before = path.read_bytes()

    def half(file, **arrays) -> None:
        file.write(b"PK half of it")
        raise error

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(type(error)):
        motion.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("start", [0.0, 1.7e9])
def test_the_rate_is_written_as_that_number(tmp_path, start):
    motion = moving_motion(92)
    motion = replace(motion, timestamps=motion.timestamps + start)
    assert motion.fps == 30.0
    with np.load(motion.save(tmp_path / "walk.npz")) as file:
        assert file["mocap_framerate"] == 30.0
        assert int(file["mocap_framerate"]) == 30
    assert Motion.load(tmp_path / "walk.npz").fps == 30.0


def test_printing_takes_one_line():
    motion = moving_motion(90)
    body = Skeleton.default().name
    assert repr(motion) == f"Motion(90 frames, 3.00 s at 30 fps, body {body}, flat hands, floor at z = 0.000 m)"
    assert str(motion) == repr(motion)
