"""HaMeR's hands: what is read is where it was, and what is doubtful is not read."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from motion_grpo.trajectory import HeadTrajectory, load_hands
from tests.tiny import head_trajectory

T_CPF_CAM = np.array([0.9238795, 0.3826834, 0.0, 0.0, 0.02, 0.03, 0.01])  # 45 degrees about x
FRAMES = 20


def hand_fields(trajectory: HeadTrajectory, seed: int = 0) -> dict[str, np.ndarray]:
    """A hand of each side in every second frame, 0.3 m to its side and 0.5 m in front of the camera."""
    rng = np.random.default_rng(seed)
    rows = np.arange(0, FRAMES, 2)
    fields: dict[str, np.ndarray] = {"T_cpf_cam": T_CPF_CAM, "focal_length": np.array(450.0)}
    for side, across in (("left", -0.3), ("right", 0.3)):
        rotations = roma.random_rotmat((len(rows), 16)).numpy().astype(np.float32)
        points = rng.normal(0, 0.02, (len(rows), 21, 3)).astype(np.float32) + np.float32([across, 0, 0.5])
        fields[f"{side}_timestamps_ns"] = np.round(trajectory.timestamps.numpy()[rows] * 1e9).astype(np.int64)
        fields[f"{side}_keypoints_3d"] = points
        fields[f"{side}_mano_hand_pose"] = rotations[:, 1:]
        fields[f"{side}_mano_hand_global_orient"] = rotations[:, 0]
    return fields


@pytest.fixture
def trajectory() -> HeadTrajectory:
    return head_trajectory(FRAMES)


def write(folder: Path, fields: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "hands.npz", **fields)
    return folder / "hands.npz"


def test_hands_are_where_the_camera_saw_them(trajectory, tmp_path) -> None:
    fields = hand_fields(trajectory)
    hands = load_hands(write(tmp_path, fields), trajectory)
    assert hands.visible.all()
    R_cam = roma.unitquat_to_rotmat(torch.tensor([0.3826834, 0, 0, 0.9238795], dtype=torch.float64))
    for row, frame in enumerate(range(0, FRAMES, 2)):
        in_cpf = R_cam @ torch.tensor(fields["left_keypoints_3d"][row, 0]).double() + torch.tensor(T_CPF_CAM[4:])
        world = trajectory.p_world_cpf[frame].double() + trajectory.R_world_cpf[frame].double() @ in_cpf
        torch.testing.assert_close(hands.p_world_wrist[row, 0], world.float(), rtol=0, atol=1e-5)
    R = trajectory.R_world_cpf[0].double() @ R_cam @ torch.tensor(fields["right_mano_hand_global_orient"][0]).double()
    torch.testing.assert_close(hands.R_world_wrist[0, 1], R.float(), rtol=0, atol=1e-5)
    assert torch.equal(hands.details.finger_rotmats[:, 1], torch.tensor(fields["right_mano_hand_pose"]))
    assert torch.equal(hands.details.keypoints[:, 0], torch.tensor(fields["left_keypoints_3d"]))
    # Every frame between two that were seen is interpolated, fingers too.
    along = hands.along(trajectory)
    assert along.visible[: FRAMES - 1].all()
    assert len(along.details.keypoints) == FRAMES


def test_the_first_of_several_hands_of_a_side(trajectory, tmp_path) -> None:
    fields = hand_fields(trajectory)
    for name in ("timestamps_ns", "keypoints_3d", "mano_hand_pose", "mano_hand_global_orient"):
        fields[f"left_{name}"] = np.repeat(fields[f"left_{name}"], 2, axis=0)
    fields["left_keypoints_3d"][1::2] += 0.4
    hands = load_hands(write(tmp_path, fields), trajectory)
    assert len(hands) == FRAMES // 2
    assert torch.equal(hands.details.keypoints[:, 0], torch.tensor(fields["left_keypoints_3d"][::2]))


def test_a_left_and_a_right_hand_in_one_place_are_dropped(trajectory, tmp_path) -> None:
    fields = hand_fields(trajectory)
    fields["left_keypoints_3d"][3] = fields["right_keypoints_3d"][4]
    hands = load_hands(write(tmp_path, fields), trajectory)
    # The left one is near right ones within half a second, which here are all; the right ones near it go too.
    near = np.linalg.norm(fields["right_keypoints_3d"][:, 0] - fields["left_keypoints_3d"][3, 0], axis=-1) <= 0.1
    visible = hands.visible
    assert visible[:, 0].sum() == FRAMES // 2 - 1
    assert visible[:, 1].sum() == (~near).sum() < FRAMES // 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("focal_length"), "has no focal_length: without the camera's intrinsics"),
        (lambda f: f.update(focal_length=np.array(-1.0)), "focal_length of .* is -1.0"),
        (lambda f: f.pop("left_mano_hand_pose"), "has no left_mano_hand_pose"),
        (lambda f: f.update(T_cpf_cam=np.eye(4)), r"T_cpf_cam of .* has the shape \(4, 4\); it needs \(7,\)"),
        (lambda f: f["left_keypoints_3d"].__setitem__((0, 0), np.nan), "left_keypoints_3d of .* holds a NaN"),
        (
            lambda f: f["left_timestamps_ns"].__iadd__(10**12) + f["right_timestamps_ns"].__iadd__(10**12),
            "outside of the",
        ),
    ],
)
def test_bad_files(trajectory, tmp_path, change, message) -> None:
    fields = hand_fields(trajectory)
    change(fields)
    with pytest.raises(ValueError, match=message):
        load_hands(write(tmp_path, fields), trajectory)


def test_a_pickle_is_not_read(trajectory, tmp_path) -> None:
    path = tmp_path / "hamer_outputs.pkl"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickle, which is never loaded here; convert it once"):
        load_hands(path, trajectory)
