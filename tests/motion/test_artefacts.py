"""Artefacts do what they say, by hand-computed amounts, and nothing at severity 0."""

from itertools import pairwise
from typing import NamedTuple

import pytest
import roma
import torch
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.body import BODY_JOINT_NAMES, Skeleton
from motion_grpo.data import MotionWindows, collate_windows
from motion_grpo.data.batches import training_batch
from motion_grpo.geometry.rotations import rotation_6d, rotation_from_6d
from motion_grpo.motion.artefacts import ARTEFACTS, OPPOSITES, HeadedMotion
from tests.tiny import moving_clip

FRAMES = 31
LIMBS = [name[:2] in ("L_", "R_") for name in BODY_JOINT_NAMES]


class Recorded(NamedTuple):
    """Two whole windows and a third that ends after 20 frames."""

    body_rotmats: Tensor
    betas: Tensor
    R_world_cpf: Tensor
    p_world_cpf: Tensor
    mask: Tensor
    skeleton: Skeleton


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    windows = MotionWindows([moving_clip(n, seed) for seed, n in enumerate((FRAMES, FRAMES, 20))], FRAMES, random=False)
    skeleton = Skeleton.default()
    batch = training_batch(collate_windows(windows.__getitems__([0, 1, 2])), skeleton, include_hands=False)
    state, head = batch.state, batch.head
    return Recorded(state.body_rotmats, state.betas, head.R_world_cpf, head.p_world_cpf, batch.mask, skeleton)


def spoil(name: str, recorded: Recorded, severity: float, **options) -> HeadedMotion:
    generator = torch.Generator().manual_seed(3)
    return ARTEFACTS[name](*recorded, torch.full((len(recorded.mask),), severity), generator, **options)


def untouched(recorded: Recorded) -> HeadedMotion:
    body_rotmats, betas, R, p, _, skeleton = recorded
    return HeadedMotion(body_rotmats, skeleton.place_by_head(betas, body_rotmats, R, p).joints, R, p)


def assert_hangs_from(motion: HeadedMotion, recorded: Recorded) -> None:
    """The joints are those of the local rotations, under the head that comes with them."""
    _, betas, _, _, _, skeleton = recorded
    body = skeleton.place_by_head(betas, motion.body_rotmats, motion.R_world_cpf, motion.p_world_cpf)
    assert_close(motion.joints, body.joints, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", ARTEFACTS)
class TestEvery:
    def test_severity_0_is_the_motion_itself(self, name: str, recorded: Recorded) -> None:
        for ours, own in zip(spoil(name, recorded, 0.0), untouched(recorded), strict=True):
            assert torch.equal(ours, own)

    def test_grows_with_the_severity(self, name: str, recorded: Recorded) -> None:
        own = untouched(recorded)
        # A second of motion has little left to average once a quarter of it is averaged.
        growth = 1.3 if name != "over_smoothed" else 1.05
        changes = []
        for severity in ARTEFACTS[name].severities:
            spoilt = spoil(name, recorded, severity)
            joints = (spoilt.joints - own.joints).norm(dim=-1).mean()
            head = (spoilt.p_world_cpf - own.p_world_cpf).norm(dim=-1).mean()
            changes.append(float(joints + head))
        assert changes[0] == 0
        assert all(more > growth * less for less, more in pairwise(changes))

    def test_each_row_has_a_severity_of_its_own(self, name: str, recorded: Recorded) -> None:
        generator = torch.Generator().manual_seed(3)
        mixed = ARTEFACTS[name](*recorded, torch.tensor([0.0, 0.4, 0.1]), generator)
        for row, severity in enumerate((0.0, 0.4, 0.1)):
            for ours, alike in zip(mixed, spoil(name, recorded, severity), strict=True):
                assert_close(ours[row], alike[row], rtol=0.0, atol=1e-6)

    def test_is_seeded(self, name: str, recorded: Recorded) -> None:
        severity = torch.full((3,), 0.2)
        first, again, other = (
            ARTEFACTS[name](*recorded, severity, torch.Generator().manual_seed(seed)) for seed in (0, 0, 2)
        )
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        random = name in {"jitter", "foot_sliding", "other_limbs", "other_head"}
        assert random != all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
        torch.manual_seed(5)
        implicit = ARTEFACTS[name](*recorded, severity)
        torch.manual_seed(5)
        assert all(torch.equal(a, b) for a, b in zip(implicit, ARTEFACTS[name](*recorded, severity), strict=True))

    def test_grades_rise_from_nothing(self, name: str, recorded: Recorded) -> None:
        severities = ARTEFACTS[name].severities
        assert severities[0] == 0
        assert list(severities) == sorted(set(severities))
        assert len(severities) == 7


def test_foot_sliding_drifts_body_and_head_together(recorded: Recorded) -> None:
    spoilt, own = spoil("foot_sliding", recorded, 0.6), untouched(recorded)
    drift = spoilt.p_world_cpf - own.p_world_cpf
    assert_close(spoilt.joints - own.joints, drift[:, :, None].expand(-1, -1, 22, -1), rtol=0.0, atol=1e-5)
    assert_close(drift[:, 0], torch.zeros(3, 3))
    # 30 steps at 30 fps are a second.
    assert_close(drift[:, -1].norm(dim=-1), torch.full((3,), 0.6), rtol=0.0, atol=1e-5)
    assert_close(drift[..., 2], torch.zeros(3, FRAMES))
    assert_close(drift[:, 15], drift[:, -1] / 2, rtol=0.0, atol=1e-5)
    directions = torch.atan2(drift[:, -1, 1], drift[:, -1, 0])
    assert directions.unique().numel() == 3
    assert torch.equal(spoilt.body_rotmats, own.body_rotmats)
    assert torch.equal(spoilt.R_world_cpf, own.R_world_cpf)


def test_jitter_is_white_noise_under_the_true_head(recorded: Recorded) -> None:
    spoilt, own = spoil("jitter", recorded, 0.1), untouched(recorded)
    noise = roma.rotmat_to_rotvec(own.body_rotmats.mT @ spoilt.body_rotmats)
    assert_close(noise.std(), torch.tensor(0.1), rtol=0.05, atol=0.0)
    assert noise.std(1).min() > 0.04
    assert abs(float((noise[:, 1:] * noise[:, :-1]).mean())) < 0.1 * 0.1**2
    assert torch.equal(spoilt.p_world_cpf, own.p_world_cpf)
    assert_hangs_from(spoilt, recorded)


def test_floor_penetration_lowers_body_and_head(recorded: Recorded) -> None:
    spoilt, own = spoil("floor_penetration", recorded, 0.25), untouched(recorded)
    down = torch.tensor([0.0, 0.0, -0.25])
    assert_close(spoilt.joints, own.joints + down)
    assert_close(spoilt.p_world_cpf, own.p_world_cpf + down)
    assert torch.equal(spoilt.R_world_cpf, own.R_world_cpf)


def test_opposites_come_in_pairs_of_equal_reach() -> None:
    names = [name for pair in OPPOSITES for name in pair]
    assert len(set(names)) == len(names)
    assert set(ARTEFACTS) - set(names) == {"foot_sliding", "other_limbs", "other_head"}
    for one, other in OPPOSITES:
        if {one, other} != {"jitter", "over_smoothed"}:
            assert ARTEFACTS[one].severities == ARTEFACTS[other].severities
            assert ARTEFACTS[one].unit == ARTEFACTS[other].unit


def test_hovering_is_the_opposite_of_penetration(recorded: Recorded) -> None:
    own = untouched(recorded)
    up, down = spoil("hovering", recorded, 0.25), spoil("floor_penetration", recorded, 0.25)
    assert_close(up.joints[..., 2] - own.joints[..., 2], torch.full((3, FRAMES, 22), 0.25), rtol=0.0, atol=1e-5)
    assert_close(up.joints + down.joints, 2 * own.joints, rtol=0.0, atol=1e-5)
    assert_close(up.p_world_cpf + down.p_world_cpf, 2 * own.p_world_cpf, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("name", "sign"), [("growing", 1), ("shrinking", -1)])
def test_resized_bodies_are_of_that_stature_and_hang_from_the_head(name: str, sign: int, recorded: Recorded) -> None:
    spoilt, own, skeleton = spoil(name, recorded, 0.1), untouched(recorded), recorded.skeleton
    assert torch.equal(spoilt.p_world_cpf, own.p_world_cpf)
    assert torch.equal(spoilt.body_rotmats, own.body_rotmats)
    per_beta = float(skeleton.stature(torch.eye(16)[:1])[0] - skeleton.stature(torch.zeros(1, 16))[0])
    betas = recorded.betas.clone()
    betas[..., 0] += sign * 0.1 / per_beta
    assert_close(
        skeleton.stature(betas) - skeleton.stature(recorded.betas), torch.full(betas.shape[:2], sign * 0.1),
        rtol=0.0, atol=2e-3,
    )  # fmt: skip
    assert_hangs_from(spoilt, recorded._replace(betas=betas))
    # Feet of a shorter body end in the air, those of a taller one in the floor.
    feet = (spoilt.joints - own.joints)[:, :, [7, 8, 10, 11], 2]
    assert (-sign * feet.mean()) > 0.03


@pytest.mark.parametrize(("name", "sign"), [("stretched_knees", -1), ("lifted_feet", 1)])
def test_knees_bend_by_the_angle_and_nothing_else_does(name: str, sign: int, recorded: Recorded) -> None:
    spoilt, own = spoil(name, recorded, 0.5), untouched(recorded)
    turn = roma.rotmat_to_rotvec(own.body_rotmats.mT @ spoilt.body_rotmats)
    expected = torch.zeros_like(turn)
    expected[:, :, [3, 4], 0] = 0.5 * sign
    assert_close(turn, expected, rtol=0.0, atol=1e-3)
    assert_hangs_from(spoilt, recorded)


def test_bent_knees_lift_the_feet_of_one_who_stands() -> None:
    skeleton, rest = Skeleton.default(), torch.eye(3).expand(1, 4, 21, 3, 3)
    # Upright: y of the rest pose is up, z forward.
    R = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(1, 4, 3, 3)
    one = Recorded(rest, torch.zeros(1, 4, 16), R, torch.tensor([0.0, 0.0, 1.6]).expand(1, 4, 3),
                   torch.ones(1, 4, dtype=torch.bool), skeleton)  # fmt: skip
    own = untouched(one)
    bent, stretched = spoil("lifted_feet", one, 0.7), spoil("stretched_knees", one, 0.7)
    for ankle in (7, 8):
        assert (bent.joints - own.joints)[..., ankle, 2].min() > 0.05
        assert (bent.joints - own.joints)[..., ankle, 0].max() < -0.2  # shins go back
        assert (stretched.joints - own.joints)[..., ankle, 0].min() > 0.2  # knees bend the wrong way
    forward, back = spoil("leaning_forward", one, 0.2), spoil("leaning_back", one, 0.2)
    # Seen from the pelvis the head is in front of one who leans forward; the head itself stays.
    assert (forward.joints - own.joints)[..., 0, 0].max() < -0.05
    assert (back.joints - own.joints)[..., 0, 0].min() > 0.05
    assert_close(forward.joints[..., 15, :], own.joints[..., 15, :], rtol=0.0, atol=1e-5)


def test_travel_is_along_the_heading_of_the_moment(recorded: Recorded) -> None:
    own = untouched(recorded)
    over, under = spoil("over_travel", recorded, 0.6), spoil("under_travel", recorded, 0.6)
    way = over.p_world_cpf - own.p_world_cpf
    assert_close(over.joints - own.joints, way[:, :, None].expand(-1, -1, 22, -1), rtol=0.0, atol=1e-5)
    assert_close(over.p_world_cpf + under.p_world_cpf, 2 * own.p_world_cpf, rtol=0.0, atol=1e-5)
    steps = way.diff(dim=1)
    forward = own.R_world_cpf[:, 1:, :, 2] * torch.tensor([1.0, 1.0, 0.0])
    forward = forward / forward.norm(dim=-1, keepdim=True)
    assert_close(steps, 0.6 / 30 * forward, rtol=0.0, atol=1e-5)
    assert_close(way[:, 0], torch.zeros(3, 3))


def test_smoothing_takes_the_fine_motion_first(recorded: Recorded) -> None:
    own = untouched(recorded).body_rotmats
    shaken = spoil("jitter", recorded, 0.05).body_rotmats
    smooth = spoil("over_smoothed", recorded._replace(body_rotmats=shaken), 0.1)
    assert_hangs_from(smooth, recorded)
    real = recorded.mask[:, 1:, None] & recorded.mask[:, :-1, None]
    roughness = lambda R: roma.rotmat_geodesic_distance(R[:, 1:], R[:, :-1])[real.expand(-1, -1, 21)].mean()  # noqa: E731
    assert roughness(smooth.body_rotmats) < 0.4 * roughness(shaken)
    distance = lambda R: roma.rotmat_geodesic_distance(R, own)[recorded.mask].mean()  # noqa: E731
    assert distance(smooth.body_rotmats) < distance(shaken)
    # All of it averaged: one pose, of the frames that exist.
    still = spoil("over_smoothed", recorded, 1e3).body_rotmats
    assert_close(still[0], still[0, :1].expand_as(still[0]), rtol=0.0, atol=1e-4)
    assert_close(still[2, :20], still[2, :1].expand(20, -1, -1, -1), rtol=0.0, atol=1e-4)
    mean = rotation_from_6d(rotation_6d(recorded.body_rotmats[2, :20]).mean(0))
    assert_close(still[2, 0], mean, rtol=0.0, atol=1e-4)


def test_limbs_reach_those_of_the_other_clip_and_the_trunk_stays(recorded: Recorded) -> None:
    other = torch.tensor([2, 0, 1])
    spoilt, own = spoil("other_limbs", recorded, 1.0, other=other), untouched(recorded)
    taken = own.body_rotmats[other]
    # The third clip ends after 20 frames: its last pose is held.
    taken[0, 20:] = own.body_rotmats[2, 19]
    assert_close(spoilt.body_rotmats[:, :, LIMBS], taken[:, :, LIMBS], rtol=0.0, atol=1e-5)
    trunk = [not limb for limb in LIMBS]
    assert torch.equal(spoilt.body_rotmats[:, :, trunk], own.body_rotmats[:, :, trunk])
    assert sum(LIMBS) == 16
    assert_hangs_from(spoilt, recorded)
    half = spoil("other_limbs", recorded, 0.5, other=other)
    whole_angle = roma.rotmat_geodesic_distance(own.body_rotmats, spoilt.body_rotmats)
    assert_close(roma.rotmat_geodesic_distance(own.body_rotmats, half.body_rotmats), whole_angle / 2, atol=1e-3, rtol=0)


def test_head_of_another_clip_starts_at_the_own_place_and_heading(recorded: Recorded) -> None:
    other = torch.tensor([1, 2, 0])
    spoilt, own = spoil("other_head", recorded, 1.0, other=other), untouched(recorded)
    assert torch.equal(spoilt.joints, own.joints)
    assert torch.equal(spoilt.body_rotmats, own.body_rotmats)
    forward, own_forward = spoilt.R_world_cpf[:, 0, :2, 2], own.R_world_cpf[:, 0, :2, 2]

    def angle(v):
        return torch.atan2(v[:, 1], v[:, 0])

    assert_close(angle(forward), angle(own_forward), rtol=0.0, atol=1e-5)
    assert_close(spoilt.p_world_cpf[:, 0, :2], own.p_world_cpf[:, 0, :2], rtol=0.0, atol=1e-5)
    assert_close(spoilt.p_world_cpf[..., 2][0], own.p_world_cpf[1, :, 2], rtol=0.0, atol=1e-5)

    # Its steps, seen from itself, are the other one's.
    def steps(R, p):
        return (R[:, :-1].mT @ (p[:, 1:] - p[:, :-1])[..., None]).squeeze(-1)

    ours, theirs = steps(*spoilt[2:]), steps(*own[2:])
    assert_close(ours[0], theirs[1], rtol=0.0, atol=1e-5)
    assert_close(ours[1, :19], theirs[2, :19], rtol=0.0, atol=1e-5)
    assert_close(ours[1, 19:], torch.zeros(11, 3), rtol=0.0, atol=1e-5)  # held once it has ended


def test_another_row_is_never_the_row_itself(recorded: Recorded) -> None:
    own = untouched(recorded)
    givers = set()
    for seed in range(20):
        spoilt = ARTEFACTS["other_limbs"](*recorded, torch.ones(3), torch.Generator().manual_seed(seed))
        difference = (spoilt.body_rotmats[:, None, 0] - own.body_rotmats[None, :, 0])[:, :, LIMBS].abs().amax((2, 3, 4))
        giver = difference.argmin(1)
        assert (giver != torch.arange(3)).all()
        givers.add(tuple(giver.tolist()))
    assert givers == {(1, 2, 0), (2, 0, 1)}


@pytest.mark.parametrize("name", ["other_limbs", "other_head"])
def test_a_single_motion_has_no_other(name: str, recorded: Recorded) -> None:
    one = Recorded(*(x if isinstance(x, Skeleton) else x[:1] for x in recorded))
    with pytest.raises(ValueError, match="batch of one motion has no other"):
        spoil(name, one, 0.5)


def test_severity_0_has_the_recorded_joints(recorded: Recorded) -> None:
    clip = moving_clip(FRAMES, 0).motion
    assert_close(spoil("jitter", recorded, 0.0).joints[0], clip.joints[:, :22], rtol=0.0, atol=1e-5)
