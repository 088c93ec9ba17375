from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from motion_grpo.body import BODY_JOINT_NAMES, NUM_BODY_JOINTS, Skeleton
from motion_grpo.motion import Motion
from motion_grpo.viz.mesh import mannequin_faces, mannequin_vertices

Y_UP_TO_Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # faces -y, left hand towards +x
LEFT_ELBOW = BODY_JOINT_NAMES.index("L_elbow")


def still(frames: int = 1, betas: torch.Tensor | None = None) -> Motion:
    """A T-pose one meter above the world's origin, facing -y."""
    return Motion(
        root_rotmats=Y_UP_TO_Z_UP.expand(frames, 3, 3),
        root_positions=torch.tensor([0.0, 0.0, 1.0]).expand(frames, 3),
        body_rotmats=torch.eye(3).expand(frames, NUM_BODY_JOINTS, 3, 3),
        betas=torch.zeros(16) if betas is None else betas,
        contacts=torch.zeros(frames, NUM_BODY_JOINTS),
        timestamps=torch.arange(frames, dtype=torch.float64) / 30,
    )


def posed(seed: int, frames: int = 2) -> Motion:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    betas = torch.cat([draw(10), torch.zeros(6)])
    return replace(
        still(frames, betas),
        root_rotmats=roma.rotvec_to_rotmat(draw(frames, 3)),
        root_positions=draw(frames, 3),
        body_rotmats=roma.rotvec_to_rotmat(0.3 * draw(frames, NUM_BODY_JOINTS, 3)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_mesh_surrounds_the_joints(seed: int) -> None:
    motion = posed(seed)
    vertices = mannequin_vertices(motion, [0, 1])
    joints = motion.joints[:, :22].numpy()
    distance = np.linalg.norm(joints[:, :, None] - vertices[:, None, ::20], axis=-1).min(-1)
    assert distance.max() < 0.14  # the pelvis is the joint deepest inside
    assert distance[:, [7, 8, 20, 21]].max() < 0.06  # ankles and wrists
    # Crown, finger tips and toes are what lies beyond the outermost joints.
    everything = motion.joints.numpy()
    assert (vertices.min(1) - everything.min(1)).min() > -0.27
    assert (vertices.max(1) - everything.max(1)).max() < 0.27
    assert (vertices.min(1) < joints.min(1)).all()
    assert (vertices.max(1) > joints.max(1)).all()


def test_the_mesh_turns_and_moves_with_the_pelvis() -> None:
    motion = posed(1, frames=1)
    turn, shift = roma.rotvec_to_rotmat(torch.tensor([0.4, -1.2, 2.0])), torch.tensor([3.0, -2.0, 0.5])
    root = motion.root_positions
    moved = replace(motion, root_rotmats=turn @ motion.root_rotmats, root_positions=root + shift)
    before = mannequin_vertices(motion, [0])[0] - root[0].numpy()
    after = mannequin_vertices(moved, [0])[0] - (root + shift)[0].numpy()
    np.testing.assert_allclose(after, before @ turn.numpy().T, atol=1e-5)


def test_the_left_arm_is_on_the_left() -> None:
    rest = still()
    bent = rest.body_rotmats.clone()
    bent[:, LEFT_ELBOW] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.0]))
    before, after = (mannequin_vertices(m, [0])[0] for m in (rest, replace(rest, body_rotmats=bent)))
    moved = np.linalg.norm(after - before, axis=-1) > 0.1
    assert moved.sum() > 100
    assert before[moved, 0].min() > 0.3  # facing -y, the left is at +x
    assert (after[moved, 2] > before[moved, 2]).all()  # the forearm goes up


@pytest.mark.parametrize("height", [-2.0, 0.0, 2.0])
def test_standing_soles_are_level_and_just_below_the_toes(height: float) -> None:
    motion = still(betas=torch.tensor([height] + [0.0] * 15))
    vertices = mannequin_vertices(motion, [0])[0]
    toes = motion.joints[0, [10, 11]].numpy()
    left, right = (vertices[np.sign(vertices[:, 0]) == side, 2].min() for side in (1, -1))
    assert left == pytest.approx(right, abs=0.005)
    for sole, toe in zip((left, right), toes, strict=True):
        assert 0.005 < toe[2] - sole < 0.06


def test_faces_look_outwards() -> None:
    vertices, faces = mannequin_vertices(still(), [0])[0].astype(np.float64), mannequin_faces()
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volume = np.einsum("fi,fi->", a, np.cross(b, c)) / 6
    assert 0.03 < volume < 0.12  # cubic meters of an adult


def test_known_hands_are_used() -> None:
    relaxed = still()
    flat = replace(relaxed, hand_rotmats=torch.eye(3).expand(1, 30, 3, 3))
    difference = np.linalg.norm(mannequin_vertices(relaxed, [0]) - mannequin_vertices(flat, [0]), axis=-1)[0]
    x = np.abs(mannequin_vertices(flat, [0])[0, :, 0])
    assert difference[x > 0.8].max() > 0.01
    assert difference[x < 0.6].max() < 1e-5


def test_another_body_has_no_mannequin() -> None:
    motion = replace(still(), skeleton=replace(Skeleton.default(), name="smplh_male"))
    with pytest.raises(ValueError, match="smplh_male"):
        mannequin_vertices(motion, [0])
