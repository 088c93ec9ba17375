"""EgoAllo's pickle of HaMeR's detections, converted without running it."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from motion_grpo.io.hamer import convert_hamer
from motion_grpo.trajectory import load_hands
from tests.tiny import head_trajectory
from tests.trajectory.readers.test_hamer import T_CPF_CAM, hand_fields

FRAMES = 20


def pickled(path: Path) -> dict[str, np.ndarray]:
    """Written as EgoAllo's 2_run_hamer_on_vrs.py does: several hands an image, None where there is none."""
    fields = hand_fields(head_trajectory(FRAMES))
    names = ("keypoints_3d", "mano_hand_pose", "mano_hand_global_orient")
    content = {"T_cpf_cam": T_CPF_CAM, "T_device_cam": T_CPF_CAM, "mano_faces_right": np.zeros((3, 3), np.int64)}
    for side in ("left", "right"):
        detections = {}
        for row, time in enumerate(fields[f"{side}_timestamps_ns"].tolist()):
            detections[time] = {name: fields[f"{side}_{name}"][[row, row]] for name in names}
            detections[time] |= {"verts": np.zeros((2, 778, 3), np.float32), "mano_hand_betas": np.zeros((2, 10))}
            detections[time + 1_000_000] = None
        content[f"detections_{side}_wrt_cam"] = detections
    path.write_bytes(pickle.dumps(content))
    return fields


def test_what_was_pickled_is_what_is_read(tmp_path) -> None:
    fields = pickled(tmp_path / "hamer_outputs.pkl")
    path = convert_hamer(tmp_path / "hamer_outputs.pkl", tmp_path / "hands.npz", from_pickle=True)
    with np.load(path, allow_pickle=False) as file:
        assert file["focal_length"] == 450
        np.testing.assert_array_equal(file["left_keypoints_3d"][::2], fields["left_keypoints_3d"])
    hands = load_hands(path, head_trajectory(FRAMES))
    np.testing.assert_array_equal(hands.details.finger_rotmats[:, 1], fields["right_mano_hand_pose"])


def test_only_when_told_to_and_only_detections(tmp_path) -> None:
    pickled(tmp_path / "hamer_outputs.pkl")
    with pytest.raises(ValueError, match="only with from_pickle"):
        convert_hamer(tmp_path / "hamer_outputs.pkl", tmp_path / "hands.npz")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"T_cpf_cam": T_CPF_CAM}))
    with pytest.raises(ValueError, match="does not hold HaMeR's detections"):
        convert_hamer(tmp_path / "other.pkl", tmp_path / "hands.npz", from_pickle=True)
    (tmp_path / "code.pkl").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(ValueError, match="nothing else is read from pickles"):
        convert_hamer(tmp_path / "code.pkl", tmp_path / "hands.npz", from_pickle=True)
    assert not (tmp_path / "hands.npz").exists()
