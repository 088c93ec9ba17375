"""Wrists that were seen: every way in gives the same poses, times decide what is visible, and bad input is named."""

import numpy as np
import pytest
import roma
import torch

from motion_grpo.body import WRIST_JOINTS, Skeleton, cpf_of
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.trajectory import CONVENTIONS, HandObservations, HeadTrajectory
from tests.tiny import moving_motion


def poses(R: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """(..., 4, 4) of rotations and positions."""
    T = torch.eye(4, dtype=R.dtype).repeat(*R.shape[:-2], 1, 1)
    T[..., :3, :3], T[..., :3, 3] = R, p
    return T


def recording(frames: int = 60, seed: int = 0) -> tuple[HeadTrajectory, torch.Tensor]:
    """The head of a moving body, and T_world_wrist (frames, 2, 4, 4) of the same body."""
    motion = moving_motion(frames, seed)
    body = motion.posed
    R, p = cpf_of(body, motion.body.cpf_offset(motion.betas))
    head = HeadTrajectory.from_matrices(poses(R, p), timestamps=motion.timestamps + 5, floor_height=0.0)
    return head, poses(body.rotmats[:, list(WRIST_JOINTS)], body.joints[:, list(WRIST_JOINTS)])


def everywhere(frames: int) -> np.ndarray:
    return np.ones((frames, 2), dtype=bool)


def same(a: HandObservations, b: HandObservations, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a.R_world_wrist, b.R_world_wrist, rtol=0, atol=atol)
    torch.testing.assert_close(a.p_world_wrist, b.p_world_wrist, rtol=0, atol=atol)
    torch.testing.assert_close(a.confidence, b.confidence)
    assert torch.equal(a.visible, b.visible)


class TestWaysIn:
    def test_world(self):
        _, T = recording()
        visible = np.random.default_rng(0).random((60, 2)) < 0.5
        matrices = HandObservations.from_world(T, visible=visible)
        torch.testing.assert_close(matrices.p_world_wrist[visible], T[..., :3, 3][visible])
        torch.testing.assert_close(matrices.R_world_wrist[visible], T[..., :3, :3][visible], rtol=0, atol=1e-6)
        assert torch.equal(matrices.visible, torch.from_numpy(visible))
        assert torch.equal(matrices.confidence, matrices.visible.float())
        assert matrices.timestamps is None
        seven = torch.cat([matrix_to_wxyz(T[..., :3, :3]), T[..., :3, 3]], dim=-1)
        same(HandObservations.from_world(seven.tolist(), visible=visible.astype(int)), matrices)

    @pytest.mark.parametrize("timed", [True, False])
    def test_cpf_and_device(self, timed):
        head, T = recording()
        options = {"visible": everywhere(60), "timestamps": head.timestamps if timed else None}
        world = HandObservations.from_world(T, **options).timed_by(head)
        T_world_cpf = poses(head.R_world_cpf, head.p_world_cpf)[:, None]
        relative = torch.linalg.inv(T_world_cpf) @ T
        same(HandObservations.from_cpf(relative, head, **options), world)
        T_device_cpf = poses(roma.rotvec_to_rotmat(torch.tensor([0.3, -0.2, 0.5])), torch.tensor([0.07, 0.01, -0.02]))
        given = HandObservations.from_device(T_device_cpf @ relative, head, T_device_cpf=T_device_cpf, **options)
        same(given, world)
        with pytest.raises(ValueError, match="relative to a device, and array was not read from a device's poses"):
            HandObservations.from_device(relative, head, **options)

    def test_seen_before_or_after_the_recording(self):
        head, T = recording()
        times = torch.tensor([4.9, 5.5, 7.5], dtype=torch.float64)
        seen = HandObservations.from_cpf(T[:3], head, visible=everywhere(3), timestamps=times)
        assert seen.visible.tolist() == [[False] * 2, [True] * 2, [False] * 2]

    def test_openxr_controllers(self):
        """Somebody in a T-pose holds two controllers as the specification describes them."""
        frames = 20
        rest = Skeleton.default().rest_joints(torch.zeros(16))
        R_world_body = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # faces +x of the z-up world, left is +y
        wrist_places = rest[list(WRIST_JOINTS)] @ R_world_body.mT
        palm_down, thumb_forward = -torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
        left_x, right_x, z = palm_down, -palm_down, -thumb_forward
        R_world_grip = torch.stack(
            [torch.stack([x, torch.linalg.cross(z, x), z], dim=-1) for x in (left_x, right_x)]
        )  # columns X, Y, Z
        outward = torch.tensor([[0.0, 1, 0], [0, -1, 0]])
        p_world_grip = wrist_places + 0.085 * outward + 0.035 * palm_down - 0.005 * thumb_forward
        A = CONVENTIONS["openxr"].A_world.float()
        T = poses(A.mT @ R_world_grip, p_world_grip @ A).expand(frames, -1, -1, -1)
        hands = HandObservations.from_openxr(T, visible=everywhere(frames))
        # In the T-pose wrists have the body's own axes.
        torch.testing.assert_close(hands.R_world_wrist[3], R_world_body.expand(2, 3, 3), rtol=0, atol=1e-6)
        torch.testing.assert_close(hands.p_world_wrist[3], wrist_places, rtol=0, atol=1e-6)

    def test_what_is_not_seen_does_not_matter(self):
        head, T = recording()
        visible = everywhere(60)
        visible[10:20, 1] = visible[30:, 0] = False
        other = T.clone()
        other[~torch.from_numpy(visible)] = torch.nan
        for make in (HandObservations.from_world, lambda poses, **o: HandObservations.from_cpf(poses, head, **o)):
            a, b = make(T, visible=visible), make(other, visible=visible)
            for name in ("R_world_wrist", "p_world_wrist", "visible", "confidence"):
                assert torch.equal(getattr(a, name), getattr(b, name))
            times = torch.linspace(5, 6.9, 101, dtype=torch.float64)
            first, second = (hands.timed_by(head).at(times) for hands in (a, b))
            same(first, second, atol=0)
            assert second.p_world_wrist.isfinite().all()


class TestTimes:
    def observations(self, times: list[float], visible: list[bool]) -> HandObservations:
        """Wrists that move along x at 1 m/s and turn about z at 1 rad/s."""
        t = torch.tensor(times, dtype=torch.float64)
        R = roma.rotvec_to_rotmat(torch.stack([0 * t, 0 * t, t], dim=-1))
        T = poses(R, torch.stack([t, 0 * t, 0 * t], dim=-1))[:, None].expand(-1, 2, -1, -1)
        flags = torch.tensor(visible)[:, None].expand(-1, 2)
        return HandObservations.from_world(T, visible=flags, timestamps=t)

    def test_interpolated_between_what_was_seen(self):
        hands = self.observations([0.0, 0.1, 0.2, 0.3, 0.5, 0.7], [True, True, True, False, True, True])
        wanted = torch.tensor([0.02, 0.05, 0.11, 0.2, 0.22, 0.29, 0.49, 0.53, 0.6], dtype=torch.float64)
        seen = hands.at(wanted)
        # 0.05 s is more than 1/30 s from both of its neighbors, which are near enough to each other; those of 0.6 s
        # are not.
        assert seen.visible[:, 0].tolist() == [True, True, True, True, True, False, True, True, False]
        # 0.22 s lies between one that was seen and one that was not: the seen one is taken as it is.
        expected = torch.tensor([0.02, 0.05, 0.11, 0.2, 0.2, 0.5, 0.53])
        shown = seen.visible[:, 1]
        torch.testing.assert_close(seen.p_world_wrist[shown, 1, 0], expected)
        angles = torch.atan2(seen.R_world_wrist[shown, 1, 1, 0], seen.R_world_wrist[shown, 1, 0, 0])
        torch.testing.assert_close(angles, expected)

    def test_the_nearest_observation_decides(self):
        times = (torch.arange(30) / 30).tolist()
        visible = [10 <= i < 20 for i in range(30)]
        seen = self.observations(times, visible).at(torch.arange(30, dtype=torch.float64) / 30 + 1e-7)
        assert seen.visible[:, 0].tolist() == visible

    def test_nothing_before_and_after(self):
        hands = self.observations([1.0], [True])
        seen = hands.at(torch.tensor([0.9, 0.967, 1.0, 1.033, 1.04], dtype=torch.float64))
        assert seen.visible[:, 0].tolist() == [False, True, True, True, False]

    def test_by_frame(self):
        head, T = recording()
        hands = HandObservations.from_world(T, visible=everywhere(60))
        with pytest.raises(ValueError, match="have no times"):
            hands.at(head.timestamps)
        assert torch.equal(hands.timed_by(head).timestamps, head.timestamps)
        with pytest.raises(ValueError, match=r"wrists of array have 60 frames and the head of array has 50"):
            hands.timed_by(head[:50])

    def test_of_another_recording(self):
        head, T = recording()
        hands = HandObservations.from_world(T, visible=everywhere(60), timestamps=head.timestamps + 100)
        with pytest.raises(ValueError, match=r"seen from 105\.000 to 106\.967 s, outside of the recording array"):
            hands.along(head)


class TestSides:
    @pytest.mark.parametrize("seed", range(3))
    def test_right_sides_say_nothing(self, seed, recwarn):
        head, T = recording(seed=seed)
        seen = HandObservations.from_world(T, visible=everywhere(60)).along(head)
        assert seen.visible.all()
        assert not recwarn.list

    @pytest.mark.parametrize("only", [None, 0, 1])
    def test_swapped_sides_warn(self, only):
        head, T = recording()
        visible = everywhere(60)
        if only is not None:
            visible[:, 1 - only] = False
        with pytest.warns(UserWarning, match="left and right wrist of array look swapped"):
            HandObservations.from_world(T.flip(1), visible=visible).along(head)

    def test_a_short_look_says_nothing(self, recwarn):
        head, T = recording()
        visible = everywhere(60)
        visible[7:] = False
        HandObservations.from_world(T.flip(1), visible=visible).along(head)
        assert not recwarn.list

    def test_centimetres(self):
        head, T = recording()
        T[..., :3, 3] *= 100
        with pytest.raises(ValueError, match="m from the eyes of array; give them in meters"):
            HandObservations.from_world(T, visible=everywhere(60)).along(head)

    def test_nothing_seen_at_all(self):
        head, T = recording()
        assert not HandObservations.from_world(T, visible=~everywhere(60)).along(head).visible.any()


def broken(change) -> torch.Tensor:
    _, T = recording(10)
    change(T)
    return T


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (recording(10)[1], {}, r"come without a flag that says when they were seen; give visible="),
        (recording(10)[1], {"visible": np.ones(10)}, r"visible of array has the shape \(10,\)"),
        (
            recording(10)[1],
            {"visible": np.ones((9, 2))},
            r"has the shape \(9, 2\).*\(10, 2\) booleans",
        ),
        (recording(10)[1], {"visible": np.full((10, 2), 0.7)}, "visible of array holds more than 0 and 1"),
        (recording(10)[1][:, 0], {"visible": everywhere(10)}, r"shape \(frames, 2, 7\).*has the shape \(10, 4, 4\)"),
        (
            broken(lambda T: T[4, 1].fill_(np.nan)),
            {"visible": everywhere(10)},
            "Frame 4 of array has a right wrist",
        ),
        (broken(lambda T: T[4, 0, :3, :3].mul_(2)), {"visible": everywhere(10)}, "Frame 4 of the left wrist of array"),
        (np.ones((10, 2, 7)), {"visible": everywhere(10)}, "Frame 0 of the left wrist of array has the quaternion"),
        (recording(10)[1], {"visible": everywhere(10), "timestamps": np.arange(9)}, r"10 frames .* shape \(9,\)"),
        (recording(10)[1], {"visible": everywhere(10), "timestamps": np.zeros(10)}, "must be finite and increase"),
        (recording(10)[1], {"visible": everywhere(10), "confidence": np.full((10, 2), 2.0)}, "numbers from 0 to 1"),
    ],
)
def test_bad_input(given, options, message):
    with pytest.raises(ValueError, match=message):
        HandObservations.from_world(given, **options)
