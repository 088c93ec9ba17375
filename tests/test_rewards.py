import math
import operator
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motion_grpo import metrics
from motion_grpo.body import FOOT_JOINTS
from motion_grpo.body.joints import LEFT_WRIST, MOVED_UNDER_HEAD
from motion_grpo.models import MotionPerceptualModel, perceptual_inputs
from motion_grpo.rewards import (
    REWARDS,
    RewardInputs,
    VisualReward,
    build_rewards,
    needing_truth,
    score,
    score_parts,
)
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.reward_inputs import FPS, inputs, still

JOINT_REWARDS = ("rotation", "position", "aligned_position", "velocity")

few = settings(max_examples=6, deadline=None, derandomize=True)

seeds = st.integers(0, 2**31 - 1)


def padded(batch: RewardInputs, count: int, value: float) -> RewardInputs:
    """The same batch with so many more frames that do not count."""

    def pad(x: Tensor) -> Tensor:
        return torch.cat([x, torch.full((x.shape[0], count, *x.shape[2:]), value, dtype=x.dtype)], dim=1)

    changed = {f.name: pad(getattr(batch, f.name)) for f in fields(batch) if f.name not in ("head", "mask", "fps")}
    mask = torch.cat([batch.mask, torch.zeros(len(batch.mask), count, dtype=torch.bool)], dim=1)
    return replace(batch, **changed, head=HeadPoses(*map(pad, batch.head)), mask=mask)


def perceptual_model() -> MotionPerceptualModel:
    return MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, mlp_ratio=1, frames_per_token=2)


def all_rewards() -> dict[str, Callable]:
    return build_rewards(["visual", *REWARDS], perceptual_model=perceptual_model())


def test_a_perfect_motion_gets_exactly_one() -> None:
    batch = still()
    rewards = build_rewards(list(REWARDS))
    for name, values in score(rewards, batch).items():
        tolerance = 1e-6 if name.startswith("aligned_position") else 0.0  # the alignment rounds
        assert_close(values, torch.ones(1), rtol=0.0, atol=tolerance)
    for name, values in score_parts(rewards, batch).items():
        tolerance = 1e-6 if name.startswith("aligned_position") else 0.0
        assert_close(values, torch.ones(1, 6), rtol=0.0, atol=tolerance)


def turned(batch: RewardInputs) -> RewardInputs:
    """Three of the 21 joints are 0.7 rad off, half way round the axis of each one's own."""
    rotmats = batch.body_rotmats.clone()
    rotmats[:, :, [2, 9, 20]] = roma.rotvec_to_rotmat(0.7 * torch.eye(3))
    return replace(batch, body_rotmats=rotmats)


def moved(batch: RewardInputs) -> RewardInputs:
    """0.3 m, 0.4 m: half a meter off."""
    return replace(batch, joints=batch.joints + torch.tensor([0.3, 0.4, 0.0]))


def collapsed(batch: RewardInputs) -> RewardInputs:
    """All joints in one point, from where the alignment can but go to the mean of the true ones, 0.2 m from each."""
    return replace(batch, joints=torch.full_like(batch.joints, 3.0))


def drifting(batch: RewardInputs) -> RewardInputs:
    """A centimetre more every frame."""
    return replace(batch, joints=batch.joints + _along_x(0.01 * torch.arange(6.0)))


def sunk(batch: RewardInputs) -> RewardInputs:
    """Two of the joints are under the floor, by 3 and 2 cm."""
    joints = batch.joints.clone()
    joints[:, :, 4, 2], joints[:, :, 5, 2] = -0.03, -0.02
    return replace(batch, joints=joints)


def skating(batch: RewardInputs) -> RewardInputs:
    """A toe 1 cm above the floor goes 2 cm a frame."""
    joints = batch.joints + _along_x(0.02 * torch.arange(6.0))
    joints[:, :, FOOT_JOINTS[2], 2] = 0.01
    return replace(batch, joints=joints)


def jerking(batch: RewardInputs) -> RewardInputs:
    """A third difference of 1 mm a frame, 27 m/s^3."""
    return replace(batch, joints=batch.joints + _along_x(1e-3 * torch.arange(6.0) ** 3 / 6))


def _along_x(x: Tensor) -> Tensor:
    return x[:, None, None] * torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "wrong", "exponent"),
    [
        ("rotation", turned, 1.0 * 0.7 * 3 / 21),
        ("position", moved, 1.0 * 0.5),
        ("position", collapsed, 1.0 * (math.hypot(2.8, 3.0, 2.0) + math.hypot(3.2, 3.0, 2.0)) / 2),
        ("aligned_position", moved, 0.0),
        ("aligned_position", collapsed, 0.5 * 0.2),
        ("velocity", moved, 0.0),
        ("velocity", drifting, 1.0 * 0.01 * 30),
        ("ground_penetration", sunk, 10 * (0.03 + 0.02)),
        ("foot_skating", skating, 1.0 * 0.02 * 30),
        ("foot_contact", moved, 0.0),
        ("foot_contact", drifting, 1.0 * 4 * 0.01 * 30),
        ("jitter", jerking, 0.1 * 0.27),
    ],
)
def test_values_by_hand(name: str, wrong: Callable, exponent: float) -> None:
    batch = wrong(still())
    rewards = build_rewards([name])
    expected = math.exp(-exponent)
    assert_close(score(rewards, batch)[name], torch.tensor([expected]), rtol=0.0, atol=1e-5)
    # The error is the same all the time, so no smoothing changes it.
    assert_close(score_parts(rewards, batch)[name], torch.full((1, 6), expected), rtol=0.0, atol=1e-5)


def test_omega_is_in_the_exponent() -> None:
    rewards = build_rewards(["position", "velocity"], omegas={"position": 3.0})
    values = score(rewards, drifting(moved(still(samples=2))))
    distance = sum(math.hypot(0.3 + 0.01 * frame, 0.4) for frame in range(6)) / 6
    assert_close(values["position"], torch.full((2,), math.exp(-3 * distance)))
    assert_close(values["velocity"], torch.full((2,), math.exp(-0.3)), rtol=0.0, atol=1e-6)


@few
@given(seed=seeds)
def test_the_scalar_is_that_of_the_metric(seed: int) -> None:
    batch = inputs(seed)
    pairs = batch.joints, batch.true_joints
    values = score(build_rewards(list(REWARDS)), batch)
    rotvecs = map(roma.rotmat_to_rotvec, (batch.body_rotmats, batch.true_body_rotmats))
    wrapped = torch.remainder(operator.sub(*rotvecs) + torch.pi, 2 * torch.pi) - torch.pi
    errors = {
        "rotation": torch.deg2rad(metrics.mpjre(batch.body_rotmats, batch.true_body_rotmats)),
        "rotation_l1": wrapped.abs().sum(-1).mean((1, 2)),
        "position": metrics.mpjpe(*pairs) / 1000,
        "aligned_position": 0.5 * metrics.pa_mpjpe(*pairs) / 1000,
        "aligned_position_egoallo": metrics.pa_mpjpe_egoallo(*pairs) / 1000,
        "velocity": metrics.mpjve(*pairs, FPS) / 1000,
        "ground_penetration": 10 * metrics.ground_penetration(batch.joints, per_frame=True),
        "foot_skating": metrics.foot_skating(batch.joints, per_frame=True) * FPS,
        "foot_contact": 4 * metrics.mpjve(*pairs, FPS, joints=FOOT_JOINTS) / 1000,
        "jitter": 0.1 * metrics.jitter(batch.joints, FPS),
    }
    assert list(values) == list(errors)
    for name, error in errors.items():
        assert_close(values[name], torch.exp(-error), rtol=1e-4, atol=1e-6)
    assert all(float(values[name].max()) < 1 for name in JOINT_REWARDS)  # these motions are not perfect


def test_the_visual_reward_is_what_the_model_says_of_the_clean_head() -> None:
    model, batch = perceptual_model().eval(), inputs()
    rewards = build_rewards(["visual"], omegas={"visual": 2.0}, perceptual_model=model)
    joints, head = perceptual_inputs(batch.body_rotmats, batch.joints, batch.head.R_world_cpf, batch.head.p_world_cpf)
    expected = torch.exp(2 * model(joints, head, batch.mask).score)
    assert_close(score(rewards, batch)["visual"], expected)
    assert 1 < float(expected.min()) < float(expected.max()) < math.exp(2)
    for batch_size in (1, 2):
        assert_close(replace(rewards["visual"], batch_size=batch_size)(batch), expected, rtol=1e-5, atol=1e-6)


def test_what_is_known_of_a_sample_is_not_asked_again() -> None:
    calls = []

    def slow(batch: RewardInputs) -> torch.Tensor:
        calls.append(batch)
        return batch.joints.mean((1, 2, 3))

    batch, rewards = inputs(), {"slow": slow, "position": REWARDS["position"]}
    frames = score_parts(rewards, batch, score(rewards, batch))
    assert len(calls) == 1
    assert_close(frames, score_parts(rewards, batch))


@few
@given(seed=seeds, count=st.integers(1, 9), rest=st.sampled_from([0.0, 7.0, float("nan")]))
def test_what_lies_in_padded_frames_changes_nothing(seed: int, count: int, rest: float) -> None:
    batch = inputs(seed)
    rewards = build_rewards(list(REWARDS))
    longer = padded(batch, count, rest)
    assert_close(score(rewards, longer), score(rewards, batch), rtol=1e-5, atol=1e-6)
    for name, values in score_parts(rewards, longer).items():
        assert_close(values[:, :20], score_parts(rewards, batch)[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(values[:, 20:], torch.zeros(3, count))


@pytest.mark.parametrize("rest", [0.0, 7.0, float("nan")])
def test_padding_changes_no_visual_reward(rest: float) -> None:
    batch = inputs()
    rewards = build_rewards(["visual"], perceptual_model=perceptual_model())
    longer = padded(batch, 5, rest)
    assert_close(score(rewards, longer), score(rewards, batch), rtol=0.0, atol=1e-5)
    values = score_parts(rewards, longer)["visual"]
    assert_close(values[:, :20], score(rewards, batch)["visual"][:, None].expand(-1, 20), rtol=0.0, atol=1e-5)
    assert torch.equal(values[:, 20:], torch.zeros(3, 5))


@few
@given(seed=seeds, row=st.integers(0, 2))
def test_samples_do_not_see_each_other(seed: int, row: int) -> None:
    batch, rewards = inputs(seed), all_rewards()
    one = {
        field.name: getattr(batch, field.name)[row : row + 1]
        for field in fields(batch)
        if field.name not in ("head", "fps")
    }
    alone = replace(batch, **one, head=HeadPoses(*(x[row : row + 1] for x in batch.head)))
    for scored in (score, score_parts):
        together = scored(rewards, batch)
        for name, values in scored(rewards, alone).items():
            assert_close(values, together[name][row : row + 1], rtol=1e-5, atol=1e-6)


@few
@given(seed=seeds)
def test_a_box_of_twice_the_window_gives_every_frame_the_scalar(seed: int) -> None:
    batch = padded(inputs(seed), 4, 0.0)
    rewards = build_rewards(list(REWARDS), smooth_frames=48)
    scalars = score(rewards, batch)
    for name, values in score_parts(rewards, batch).items():
        assert_close(values[:, :20], scalars[name][:, None].expand(-1, 20), rtol=1e-4, atol=1e-6)


@few
@given(seed=seeds)
def test_of_every_joint_comes_the_share_it_has_a_part_in(seed: int) -> None:
    batch = padded(inputs(seed), 4, 0.0)
    rewards = build_rewards(list(REWARDS))
    frames, joints = score_parts(rewards, batch), score_parts(rewards, batch, joints=True)
    for name, values in joints.items():
        assert values.shape == (3, 24, 22)
        assert_close(values[..., 0], frames[name], rtol=1e-4, atol=1e-6)  # the root's place has the whole error
        assert bool((values[:, :20] >= values[:, :20, :1] - 1e-6).all())
    shares = -joints["rotation"][:, :20, 1:].log()
    assert_close(shares.sum(-1), -frames["rotation"][:, :20].log(), rtol=1e-4, atol=1e-5)


def test_a_wrist_is_nobodys_business_but_its_arms() -> None:
    good = still(frames=21)
    joints = good.joints.clone()
    joints[:, :, LEFT_WRIST, 1] += 0.3
    rewards = build_rewards(["position", "velocity"], smooth_frames=1)
    values = score_parts(rewards, replace(good, joints=joints), joints=True)["position"][0]
    hurt = (values[10] < 1 - 1e-6).nonzero().flatten().tolist()
    assert hurt == [0, *(joint for joint in range(1, 22) if MOVED_UNDER_HEAD[joint][LEFT_WRIST])]
    assert {16, 18} < set(hurt)
    assert 17 not in hurt


def test_a_foot_that_the_recording_lifts_may_move() -> None:
    good = still(frames=21)
    lifted = good.true_contacts.clone()
    lifted[:, :, [joint - 1 for joint in FOOT_JOINTS]] = 0
    rewards = build_rewards(["foot_contact"])
    wild = replace(good, joints=good.joints + _along_x(0.02 * torch.arange(21.0)))
    assert float(score(rewards, wild)["foot_contact"]) < 0.2
    assert float(score(rewards, replace(wild, true_contacts=lifted))["foot_contact"]) == 1.0
    up = wild.joints + torch.tensor([0.0, 0.0, 0.5])  # as high as one likes
    assert_close(score(rewards, replace(wild, joints=up))["foot_contact"], score(rewards, wild)["foot_contact"])


def test_a_sliding_toe_is_the_business_of_its_leg_and_not_of_the_other() -> None:
    good = still(frames=21)
    joints = good.joints.clone()
    joints[:, :, FOOT_JOINTS[2], 2] = 0.01
    joints[:, :, FOOT_JOINTS[2], 0] += 0.02 * torch.arange(21.0)
    rewards = build_rewards(["foot_skating"], smooth_frames=1)
    values = score_parts(rewards, replace(good, joints=joints), joints=True)["foot_skating"][0, 10]
    slides = math.exp(-0.02 * 30)
    movers = [0, *(joint for joint in range(1, 22) if MOVED_UNDER_HEAD[joint][FOOT_JOINTS[2]])]
    expected = torch.tensor([slides if joint in movers else 1.0 for joint in range(22)])
    assert_close(values, expected, rtol=0.0, atol=1e-5)
    assert {1, 4, 7} < set(movers)  # its hip, knee and ankle
    assert not {2, 5, 8} & set(movers)


@few
@given(seed=seeds)
def test_without_smoothing_the_scalar_is_the_geometric_mean_of_the_frames(seed: int) -> None:
    batch = inputs(seed)
    rewards = build_rewards(["rotation", "position", "aligned_position"], smooth_frames=1)
    for name, values in score_parts(rewards, batch).items():
        assert float(values.std(dim=1).min()) > 1e-4  # frames differ
        assert_close(values.log().mean(dim=1).exp(), score(rewards, batch)[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "box", "hurt"),
    [
        ("position", 1, range(10, 11)),
        ("position", 9, range(6, 15)),
        ("velocity", 1, range(9, 12)),  # the steps to and from the frame
        ("velocity", 5, range(7, 14)),
        ("jitter", 1, range(7, 14)),
    ],
)
def test_one_bad_frame_costs_the_frames_around_it(name: str, box: int, hurt: range) -> None:
    good = still(frames=21)
    joints = good.joints.clone()
    joints[:, 10] += 0.05
    values = score_parts(build_rewards([name], smooth_frames=box), replace(good, joints=joints))[name][0]
    assert (values < 0.9999).nonzero().flatten().tolist() == list(hurt)
    assert torch.equal(values, values.flip(0))


def test_a_box_averages_what_there_is_of_it() -> None:
    """Errors of 0.1 m per frame number; at the first frame the box of three has two frames, in the padding none."""
    good = still(frames=4)
    joints = good.joints + _along_x(0.1 * torch.arange(4.0))
    batch = replace(good, joints=joints, mask=torch.tensor([[True, True, True, False]]))
    values = score_parts(build_rewards(["position"], smooth_frames=3), batch)["position"]
    expected = [math.exp(-0.05), math.exp(-0.1), math.exp(-0.15), 0.0]
    assert_close(values, torch.tensor([expected]))


@few
@given(seed=seeds, scale=st.floats(0.3, 3.0))
def test_alignment_takes_every_frames_own_similarity_away(seed: int, scale: float) -> None:
    batch = inputs(seed)
    generator = torch.Generator().manual_seed(seed)
    R = roma.rotvec_to_rotmat(torch.randn(3, 20, 3, generator=generator))
    shift = torch.randn(3, 20, 1, 3, generator=generator)
    elsewhere = replace(batch, joints=scale * batch.joints @ R.mT + shift)
    rewards = build_rewards(["aligned_position", "position"])
    assert_close(
        score_parts(rewards, elsewhere)["aligned_position"],
        score_parts(rewards, batch)["aligned_position"],
        rtol=0.0,
        atol=1e-5,
    )
    assert (score(rewards, elsewhere)["position"] < score(rewards, batch)["position"]).all()


@pytest.mark.parametrize("name", REWARDS)
def test_nothing_is_read_back_from_the_device(name: str) -> None:
    """Tensors of the meta device have no values, so reading one is an error."""

    def on_meta(x: Tensor) -> Tensor:
        return x.to("meta")

    batch = inputs()
    there = {f.name: on_meta(getattr(batch, f.name)) for f in fields(batch) if f.name not in ("head", "fps")}
    batch = replace(batch, **there, head=HeadPoses(*map(on_meta, batch.head)))
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(batch.mask.all())
    reward = REWARDS[name]
    assert reward(batch).shape == (3,)
    assert reward.per_frame(batch).shape == (3, 20)
    assert reward(batch).device.type == reward.per_frame(batch).device.type == "meta"


def test_no_gradient_and_no_bfloat16() -> None:
    batch, rewards = inputs(), all_rewards()
    expected = score(rewards, batch)
    joints = batch.joints.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = score(rewards, replace(batch, joints=joints)) | {
            f"{name} frames": v for name, v in score_parts(rewards, replace(batch, joints=joints)).items()
        }
    assert not any(v.requires_grad for v in values.values())
    assert {v.dtype for v in values.values()} == {torch.float32}
    for name in rewards:
        assert torch.equal(values[name], expected[name])


def test_the_papers_settings() -> None:
    rewards = build_rewards(["visual", *JOINT_REWARDS], perceptual_model=perceptual_model())
    assert list(rewards) == ["visual", "rotation", "position", "aligned_position", "velocity"]
    assert [reward.omega for reward in rewards.values()] == [1.0, 1.0, 1.0, 0.5, 1.0]
    assert needing_truth(rewards | build_rewards(["jitter"])) == list(JOINT_REWARDS)


def test_the_perceptual_model_is_frozen() -> None:
    model = perceptual_model().train()
    reward = build_rewards(["visual"], perceptual_model=model)["visual"]
    assert isinstance(reward, VisualReward)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
