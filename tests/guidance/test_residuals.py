from dataclasses import replace

import pytest
import torch

from motion_grpo.geometry.rotations import project_to_rotation
from motion_grpo.guidance import Terrain, residuals, so3
from motion_grpo.guidance.residuals import ARMS, FINGERS, HANDS, TRUNK_AND_LEGS, Anchors, SeenHands
from motion_grpo.guidance.solver import JointTerm, Terms
from tests.guidance.problems import change_of, egoallo_terms, golden

ORDER = [joint - 1 for joint in (*TRUNK_AND_LEGS, *ARMS, *FINGERS)]
FRAMES = 4


@pytest.fixture
def anchors() -> Anchors:
    """Rotations of a body with fingers, of four frames, far from where the head is."""
    file, anchors = golden(torch.float64, FRAMES)
    flat = torch.eye(3, dtype=torch.float64)[:, :, None, None, None].expand(3, 3, 1, FRAMES, 30)
    rotations = so3.product(torch.cat([anchors.rotations, flat], -1), so3.exp(0.4 * random(3, 1, FRAMES, 51)))
    return replace(anchors, rest_joints=file["rest_joints"][None], rotations=rotations)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def hands() -> SeenHands:
    return SeenHands(
        confidence=torch.rand(FRAMES, 2, dtype=torch.float64),
        R_world_wrist=project_to_rotation(random(FRAMES, 2, 3, 3)),
        p_world_wrist=random(FRAMES, 2, 3),
        fingers=so3.components_first(project_to_rotation(random(FRAMES, 30, 3, 3))),
        fingers_seen=torch.rand(FRAMES, 30, dtype=torch.float64).round(),
        image=random(FRAMES, 2, 16, 2),
        image_seen=torch.ones(FRAMES, 2, dtype=torch.float64),
        # Behind the eyes and looking ahead, so that all hands are in front of it.
        R_cpf_camera=torch.eye(3, dtype=torch.float64),
        p_cpf_camera=torch.tensor([0.1, 0.0, -3.0], dtype=torch.float64),
    )


def all_terms(anchors: Anchors, R: torch.Tensor, seen: SeenHands, terrain: Terrain) -> Terms:
    body = anchors.place(R)
    part = replace(anchors, rest_joints=anchors.rest_joints[:, :22], rotations=anchors.rotations[..., :21])
    return {
        **egoallo_terms(part)(R[..., :21]),
        "wrist_position": residuals.wrist_position(body, seen, 50.0),
        "wrist_rotation": residuals.wrist_rotation(body, seen, 10.0),
        "finger_prior": residuals.prior_rotation(anchors, R, 0.1, HANDS),
        "finger_smoothness": residuals.pose_smoothness(R, 1.0, HANDS),
        "finger_rotation": residuals.finger_rotation(R, seen, 5.0),
        "reprojection": residuals.reprojection(anchors, body, seen, 1.0),
        "penetration_floor": residuals.penetration(body, None, 30.0),
        "penetration": residuals.penetration(body, terrain, 30.0),
    }


def test_jacobians_are_the_derivatives(anchors: Anchors) -> None:
    # High enough that some joints are below it; its cells are wide enough that no joint crosses into another.
    place = anchors.place(anchors.rotations).joints[0, :, :22]
    corner = place[..., :2].amin((0, 1)) - 1
    terrain = Terrain(place[..., 2].mean() + 0.2 * random(5, 5), tuple(corner.tolist()), 2.0)
    seen = hands()
    R = so3.product(anchors.rotations, so3.exp(0.3 * random(3, 1, FRAMES, 51)))
    v, step = random(3, 1, FRAMES, 51), 1e-5
    there, back = (all_terms(anchors, so3.product(R, so3.exp(sign * step * v)), seen, terrain) for sign in (1.0, -1.0))
    for name, term in all_terms(anchors, R, seen, terrain).items():
        true = (there[name].residual - back[name].residual) / (2 * step)
        assert torch.allclose(change_of(term, v, ORDER), true, rtol=1e-4, atol=1e-4), name
        if not name.startswith("penetration"):
            assert true.abs().max() > 0.01, name
        if isinstance(term, JointTerm):
            assert all(J.shape[-1] == term.residual.shape[-1] for J in term.jacobians)


def test_what_is_where_it_was_seen_costs_nothing(anchors: Anchors) -> None:
    body = anchors.place(anchors.rotations)
    camera = hands()
    points = body.joints[0][:, [j for side in residuals.KEYPOINTS_OF_HAND for j in side]]
    eye = anchors.p_world_cpf + anchors.R_world_cpf @ camera.p_cpf_camera
    there = (points - eye[:, None]) @ anchors.R_world_cpf
    seen = camera._replace(
        R_world_wrist=body.rotmats[0][:, [20, 21]],
        p_world_wrist=body.joints[0][:, [20, 21]],
        fingers=anchors.rotations[:, :, 0, :, 21:],
        image=(there[..., :2] / there[..., 2:]).unflatten(1, (2, 16)),
    )
    terms = all_terms(anchors, anchors.rotations, seen, Terrain(torch.full((1, 1), -9.0).double(), (0.0, 0.0), 1.0))
    for name in ("wrist_position", "wrist_rotation", "finger_prior", "finger_rotation", "reprojection", "penetration"):
        assert terms[name].residual.abs().max() < 1e-6, name


def test_the_log_near_no_turn_and_near_half_a_turn() -> None:
    axis = torch.nn.functional.normalize(random(3, 50), dim=0)
    for angle in (0.0, 1e-9, 1e-5, 1e-3, 0.5, 3.0, torch.pi - 1e-4):
        r, J = so3.log(so3.exp(angle * axis))
        torch.testing.assert_close(r, angle * axis, rtol=1e-5, atol=1e-7)
        assert J.isfinite().all()


def test_heights_between_points_of_a_terrain() -> None:
    points = torch.tensor([[0.0, 0, 0], [1.0, 0, 1.0], [0.0, 1, 0], [1.0, 1, 0.5], [1.0, 1, 0.2], [0.0, 0, 9.0]])
    terrain = Terrain.from_points(points, cell=1.0)
    height, slope = terrain.at(torch.tensor([[0.5, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(height, torch.tensor([0.5, 0.5, 0.0, 0.375]))
    torch.testing.assert_close(slope[0], torch.tensor([1.0, -0.25]))
    assert slope[2, 0] == 0
    assert terrain.lowered(0.5).at(torch.zeros(1, 2))[0] == -0.5
    with pytest.raises(ValueError, match="No point of the terrain is below"):
        Terrain.from_points(points + torch.tensor([0.0, 0.0, 50.0]))
    with pytest.raises(ValueError, match="cell is 0"):
        Terrain.from_points(points, cell=0.0)
