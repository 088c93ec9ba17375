"""Each system's axes against poses written out by hand, and what any conversion keeps."""

import itertools

import numpy as np
import pytest
import roma
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from motion_grpo.trajectory import CONVENTIONS, Convention, HeadTrajectory
from tests.trajectory.helpers import walk, wxyz_xyz

H = 0.5**0.5
# The same three poses in every system: eyes 3 m forward, 2 m right and 1.6 m up of the origin, looking forward, then
# left, then straight up. Quaternions w x y z, then the position.
LOOKS = {
    "cpf": [(0.5, 0.5, 0.5, 0.5), (0, 0, H, H), (H, 0, 0, H), (3, -2, 1.6)],
    "openxr": [(1, 0, 0, 0), (H, 0, H, 0), (H, H, 0, 0), (2, 1.6, -3)],
    "arkit": [(1, 0, 0, 0), (H, 0, H, 0), (H, H, 0, 0), (2, 1.6, -3)],
    "unity": [(1, 0, 0, 0), (H, 0, -H, 0), (H, -H, 0, 0), (2, 1.6, 3)],
    "unreal": [(1, 0, 0, 0), (H, 0, 0, -H), (H, 0, -H, 0), (300, 200, 160)],
    "ros": [(1, 0, 0, 0), (H, 0, 0, H), (H, 0, -H, 0), (3, -2, 1.6)],
    "camera": [(0.5, -0.5, 0.5, -0.5), (H, -H, 0, 0), (H, 0, 0, -H), (3, -2, 1.6)],
}
# Columns: where the wearer's left, up and forward point, in x forward, y left, z up.
EXPECTED = torch.tensor(
    [
        [[0.0, 0, 1], [1, 0, 0], [0, 1, 0]],  # left (0,1,0), up (0,0,1), forward (1,0,0)
        [[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]],  # left is back, up is up, forward is left
        [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]],  # left is left, up is back, forward is up
    ]
)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_poses_written_by_hand(name):
    *quaternions, position = LOOKS[name]
    poses = np.array([[*quaternion, *position] for quaternion in quaternions], dtype=np.float64)
    trajectory = HeadTrajectory.from_convention(poses, name, fps=30, floor_height=0.0)
    torch.testing.assert_close(trajectory.R_world_cpf, EXPECTED, atol=1e-6, rtol=0)
    torch.testing.assert_close(trajectory.p_world_cpf, torch.tensor([[3.0, -2.0, 1.6]] * 3))


def test_presets_differ_where_the_systems_do():
    assert CONVENTIONS["openxr"] == CONVENTIONS["arkit"]
    handedness = {name: int(torch.det(c.A_world)) for name, c in CONVENTIONS.items()}
    assert handedness == {"cpf": 1, "openxr": 1, "arkit": 1, "unity": -1, "unreal": -1, "ros": 1, "camera": 1}


def test_an_optical_frame_in_words():
    # A camera's optical frame (x right, y down, z forward) looking along the world's x axis.
    optical = Convention("forward left up", "right down forward")
    R = torch.tensor([[[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]] * 2)
    poses = torch.cat([torch.cat([R, torch.zeros(2, 3, 1)], 2), torch.tensor([[[0.0, 0, 0, 1]]] * 2)], 1)
    trajectory = HeadTrajectory.from_convention(poses, optical, fps=30)
    torch.testing.assert_close(trajectory.R_world_cpf, EXPECTED[:1].expand(2, 3, 3))
    assert trajectory.source_frame == "world 'forward left up', head 'right down forward'"


directions = st.permutations([("left", "right"), ("up", "down"), ("forward", "back")]).flatmap(
    lambda pairs: st.tuples(*[st.sampled_from(pair) for pair in pairs]).map(" ".join)
)


@given(directions, directions, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_distances_and_angles_survive_any_convention(world, head, seed):
    try:
        convention = Convention(world, head)
    except ValueError:
        assume(False)  # frames of different handedness, see below
    generator = torch.Generator().manual_seed(seed)
    R = roma.random_rotmat(5, generator=generator, dtype=torch.float64)
    p = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    R_cpf, p_cpf = convention.convert(R, p)
    torch.testing.assert_close(torch.cdist(p_cpf, p_cpf), torch.cdist(p, p))
    torch.testing.assert_close(torch.linalg.det(R_cpf), torch.ones(5, dtype=torch.float64))
    for a, b in itertools.combinations(range(5), 2):
        torch.testing.assert_close(
            roma.rotmat_geodesic_distance(R_cpf[a], R_cpf[b]), roma.rotmat_geodesic_distance(R[a], R[b])
        )


@pytest.mark.parametrize(
    ("world", "head", "message"),
    [
        ("right up back", "right up forward", "different handedness"),
        ("right up", "right up back", "three perpendicular"),
        ("right up left", "right up back", "three perpendicular"),
        ("right up north", "right up back", "'north' .* is no direction"),
    ],
)
def test_axes_that_are_no_frame_are_refused(world, head, message):
    with pytest.raises(ValueError, match=message):
        Convention(world, head)


def test_axes_may_be_given_in_words():
    poses, _ = walk()
    in_words, by_name = (
        HeadTrajectory.from_convention(poses, convention, fps=30, floor_height=0.0)
        for convention in (" right up back/right up back ", "openxr")
    )
    assert in_words.R_world_cpf.equal(by_name.R_world_cpf)
    with pytest.raises(ValueError, match=r"'north' .* is no direction"):
        HeadTrajectory.from_convention(poses, "right up back / north up back", fps=30)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'blender'.*openxr, unity.*in words"):
        HeadTrajectory.from_convention(walk()[0], "blender", fps=30)


def test_engine_quaternions_with_w_last_are_recognized():
    # A turning head in Unity: the heading turns about y, the up axis.
    half = np.linspace(0, np.pi, 60) / 2
    zero = np.zeros_like(half)
    position = np.tile([0, 1.6, 0], (60, 1))
    w_last = np.column_stack([zero, np.sin(half), zero, np.cos(half), position])
    with pytest.raises(ValueError, match="look like x y z w"):
        HeadTrajectory.from_convention(w_last, "unity", fps=30)
    HeadTrajectory.from_convention(w_last[:, [3, 0, 1, 2, 4, 5, 6]], "unity", fps=30)


def test_cpf_is_the_identity_and_points_are_converted_with_the_poses():
    poses, _ = walk()
    same = HeadTrajectory.from_convention(wxyz_xyz(poses), "cpf", fps=30)
    torch.testing.assert_close(same.p_world_cpf, torch.from_numpy(poses[:, :3, 3]).float())
    rng = np.random.default_rng(0)
    # A floor at y = -1.3 m in OpenXR, given as points.
    floor = np.column_stack([rng.uniform(-2, 2, 500), rng.normal(-1.3, 0.005, 500), rng.uniform(-2, 2, 500)])
    poses = np.array([[1.0, 0, 0, 0, 0.2, 0.3, 0]] * 10)
    trajectory = HeadTrajectory.from_convention(poses, "openxr", fps=30, points=floor)
    assert trajectory.floor_source == "point cloud"
    assert trajectory.floor_height == pytest.approx(-1.3, abs=0.01)
