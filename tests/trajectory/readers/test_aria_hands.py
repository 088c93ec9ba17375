"""MPS hand tracking: the real samples of every version, and observations with known answers."""

import pytest
import roma
import torch

from motion_grpo.body import JOINT_NAMES, Skeleton
from motion_grpo.trajectory import default_T_device_cpf
from motion_grpo.trajectory.readers.aria_hands import HandTracking, read_hand_tracking
from tests.conftest import shared_path

SAMPLES = ["wrist_and_palm_poses", "wrist_and_palm_poses_v2", "hand_tracking_results_v1", "hand_tracking_results_v2"]


@pytest.mark.parametrize("name", SAMPLES)
def test_real_hand_tracking_of_every_version(name):
    hands = read_hand_tracking(shared_path(f"samples/aria_gen1_mps/{name}.csv"))
    tracked = hands.confidence > 0
    # As Meta's own test counts them: only the right hand, from row 110 on, in the one recording.
    assert tracked.sum(0).tolist() == ([0, 6] if name.startswith("wrist") else [3, 3])
    for values in (hands.wrists, hands.palms):
        assert torch.equal(values.isfinite().all(-1), tracked)
    assert (hands.wrists - hands.palms).norm(dim=-1)[tracked].sub(0.085).abs().max() < 0.02  # a hand's length
    has_normals = {"wrist": name != "wrist_and_palm_poses", "palm": name.endswith("v2")}
    for part, normals in (("wrist", hands.wrist_normals), ("palm", hands.palm_normals)):
        if has_normals[part]:
            lengths = normals.norm(dim=-1)[tracked]
            torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-4, rtol=0)
            assert normals[~tracked].isnan().all()
        else:
            assert normals.isnan().all()


def test_first_version_knows_its_wrist_normals_by_the_wrist_frame():
    first, second = (
        read_hand_tracking(shared_path(f"samples/aria_gen1_mps/hand_tracking_results_{version}.csv"))
        for version in ("v1", "v2")
    )
    torch.testing.assert_close(first.wrist_normals, second.wrist_normals, atol=2e-3, rtol=0, equal_nan=True)


@pytest.mark.parametrize("side", [0, 1])
def test_wrist_frame_is_that_of_smplh(side):
    """In it, the knuckles of a real hand lie where the rest pose of the default body has them."""
    path = shared_path("samples/aria_gen1_mps/hand_tracking_results_v2.csv")
    hands = read_hand_tracking(path)
    R = hands.wrist_poses()[..., :3, :3]
    seen = (hands.confidence[:, side] > 0).nonzero().flatten().tolist()
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    rest = Skeleton.default().rest_joints(torch.zeros(16))
    wrist = (20, 21)[side]
    names = [f"{'LR'[side]}_{finger}1" for finger in ("index", "middle", "ring", "pinky")]
    expected = rest[[JOINT_NAMES.index(name) for name in names]] - rest[wrist]
    for row in seen:
        places = [
            [float(rows[row][header.index(f"t{axis}_{('left', 'right')[side]}_landmark_{i}_device")]) for axis in "xyz"]
            for i in (8, 11, 14, 17)
        ]
        knuckles = (torch.tensor(places) - hands.wrists[row, side]) @ R[row, side]
        turn = roma.rigid_vectors_registration(expected.double(), knuckles.double())
        assert torch.rad2deg(roma.rotmat_to_rotvec(turn).norm()) < 4
        torch.testing.assert_close(torch.linalg.det(R[row, side]), torch.tensor(1.0))
    assert seen


def test_both_kinds_of_file_name_the_same_places():
    # Landmarks 5 and 20 are wrist and palm; the file gives the wrist twice.
    path = shared_path("samples/aria_gen1_mps/hand_tracking_results_v2.csv")
    hands = read_hand_tracking(path)
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    column = [header.index(f"t{axis}_left_device_wrist") for axis in "xyz"]
    expected = torch.tensor([[float(row[i]) for i in column] for row in rows[:3]])
    torch.testing.assert_close(hands.wrists[:3, 0], expected, atol=1e-5, rtol=0)
    assert hands.timestamps[:2].tolist() == pytest.approx([1762.609162, 1762.809134])


def test_hands_in_the_cpf():
    hands = read_hand_tracking(shared_path("samples/aria_gen1_mps/wrist_and_palm_poses_v2.csv"))
    T_device_cpf = default_T_device_cpf()
    seen = hands.in_cpf(T_device_cpf)
    assert seen.frame == "cpf"
    wrist = seen.wrists[111, 1]
    # x left, y up, z forward: the right hand is to the right, below and before the eyes.
    assert -0.6 < wrist[0] < -0.1
    assert -0.6 < wrist[1] < -0.1
    assert 0 < wrist[2] < 0.6
    back = T_device_cpf[:3, :3].float() @ wrist + T_device_cpf[:3, 3].float()
    torch.testing.assert_close(back, hands.wrists[111, 1])
    normal = T_device_cpf[:3, :3].float() @ seen.palm_normals[111, 1]
    torch.testing.assert_close(normal, hands.palm_normals[111, 1])


def made_hands(timestamps: list[float]) -> HandTracking:
    """Observation ``i`` has its number in every place; the left hand is never tracked."""
    number = torch.arange(len(timestamps), dtype=torch.float32)[:, None, None].expand(-1, 2, 3).clone()
    number[:, 0] = torch.nan
    confidence = torch.tensor([0.0, 0.9]).expand(len(timestamps), 2)
    return HandTracking(torch.tensor(timestamps, dtype=torch.float64), confidence, number, number, number, number)


def test_observations_go_to_the_nearest_frame():
    frames = 5.0 + torch.arange(8, dtype=torch.float64) / 30
    observations = made_hands([4.9, 5.001, 5.108, 5.2]).at(frames)
    assert observations.shape == (8, 2, 13)
    # 5.001 is frame 0, 5.108 is frame 3 (5.1), 5.2 is frame 6; 4.9 is nobody's.
    assert observations[:, 1, 0].tolist() == pytest.approx([0.9, 0, 0, 0.9, 0, 0, 0.9, 0])
    assert observations[[0, 3, 6], 1, 1].tolist() == [1, 2, 3]
    assert observations[[1, 2, 4, 5, 7], 1, 1:].isnan().all()
    assert observations[:, 0, 1:].isnan().all()
    assert (observations[:, 0, 0] == 0).all()
    single = made_hands([5.1]).at(frames)
    assert single[:, 1, 0].nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: [lines[0], lines[2], lines[1]], "Line 3 of .* the time does not increase"),
        (lambda lines: [lines[0].replace("tx_right_palm_device", "other"), *lines[1:]], "tx_right_palm_device"),
        (lambda lines: [*lines[:2], lines[2][:30]], "Line 3 of"),
        (lambda lines: ["time,x", "1,2"], "lacks the columns"),
        (lambda lines: lines[:1], "no rows"),
    ],
)
def test_bad_hand_tracking(tmp_path, change, match):
    lines = shared_path("samples/aria_gen1_mps/wrist_and_palm_poses.csv").read_text().splitlines()
    path = tmp_path / "wrist_and_palm_poses.csv"
    path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(ValueError, match=match):
        read_hand_tracking(path)
