import inspect
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.testing import assert_close

from motion_grpo import metrics
from motion_grpo.body import FOOT_JOINTS, HEAD, Skeleton, forward_kinematics
from motion_grpo.metrics import align_similarity

GOLDEN = Path(__file__).parent / "golden" / "metrics.safetensors"
FPS = 30.0
L_ANKLE, _, L_TOE, R_TOE = FOOT_JOINTS
PAIRED = ("mpjpe", "pa_mpjpe", "pa_mpjpe_egoallo", "mpjve", "head_error")
SINGLE = ("jitter", "ground_penetration", "foot_skating", "foot_skating_egoallo", "ground_contact_egoallo")
seeded = given(seed=st.integers(0, 2**31 - 1))
few = settings(max_examples=20, deadline=None, derandomize=True)


def call(name: str, *positions: Tensor, mask: Tensor | None = None) -> Tensor:
    function = getattr(metrics, name)
    keywords = {"fps": FPS} if "fps" in inspect.signature(function).parameters else {}
    return function(*positions, mask=mask, **keywords)


def bodies(seed: int, *batch: int, frames: int = 12) -> Tensor:
    """A body of 22 joints that turns, walks and dips its feet under the floor; jittery, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

    positions = 0.3 * draw(1, 22, 3) + 0.05 * draw(frames, 22, 3) + 0.1 * draw(frames, 1, 3).cumsum(dim=-3)
    positions[..., FOOT_JOINTS, 2] = 0.05 * draw(frames, 4)
    return positions


def similarity(seed: int) -> tuple[float, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    R = roma.unitquat_to_rotmat(roma.quat_normalize(torch.randn(4, generator=generator, dtype=torch.float64)))
    scale = float(torch.rand((), generator=generator)) * 2 + 0.2
    return scale, R, torch.randn(3, generator=generator, dtype=torch.float64)


def still(frames: int = 5) -> Tensor:
    """A body whose every joint is 1 m above the floor."""
    return torch.tensor([0.0, 0.0, 1.0]).repeat(frames, 22, 1)


def test_golden_agreement_with_egoallo() -> None:
    golden = load_file(GOLDEN)
    pred, true = (
        torch.cat([golden[f"{who}_T_world_root"][..., None, 4:], golden[f"{who}_Ts_world_joint"][..., 4:]], dim=-2)
        for who in ("pred", "label")
    )

    def close(a, b):
        return assert_close(a, b, rtol=1e-5, atol=0.0)

    close(metrics.mpjpe(pred, true), golden["mpjpe_mm"])
    close(metrics.pa_mpjpe_egoallo(pred, true), golden["pa_mpjpe_mm"])
    close(metrics.foot_skating_egoallo(pred), golden["foot_skate_m"])
    close(metrics.ground_contact_egoallo(pred), golden["foot_contact"])
    close(metrics.head_error(pred, true), golden["head_trans_m"] * 1000)
    assert (metrics.pa_mpjpe(pred, true) < golden["pa_mpjpe_mm"]).all()


# ---- similarity alignment and the position errors


def numpy_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    source, mean, target = source - source.mean(0), target.mean(0), target - target.mean(0)
    turned = Rotation.align_vectors(target, source)[0].apply(source)
    return (target * turned).sum() / (source**2).sum() * turned + mean


@few
@given(seed=st.integers(0, 2**31 - 1), mirrored=st.booleans(), noise=st.floats(0.0, 0.5))
def test_alignment_agrees_with_scipy(seed: int, mirrored: bool, noise: float) -> None:
    target = bodies(seed, 2, frames=3)
    scale, R, shift = similarity(seed)
    source = scale * (target + noise * bodies(seed + 1, 2, frames=3)) @ R.mT + shift
    if mirrored:  # the best orthogonal matrix would be a reflection
        source = source * torch.tensor([1.0, 1.0, -1.0])
    expected = np.stack([numpy_align(s, t) for s, t in zip(source.view(6, 22, 3), target.view(6, 22, 3), strict=True)])
    assert_close(align_similarity(source, target).view(6, 22, 3), torch.from_numpy(expected), rtol=0.0, atol=1e-9)
    single = align_similarity(source.float(), target.float())
    assert_close(single.view(6, 22, 3), torch.from_numpy(expected).float(), rtol=0.0, atol=2e-5)


POINT = torch.tensor([5.3, -7.1, 1.7]).repeat(22, 1)
ROUNDED = POINT * (1 + torch.finfo(torch.float32).eps * (torch.arange(66).view(22, 3) % 5 - 2))  # one point to rounding
LINE = torch.linspace(0, 1, 22)[:, None] * torch.tensor([1.0, 2.0, 0.5])
CLOUD = bodies(3, frames=1)[0].float()


@pytest.mark.parametrize(
    ("source", "target"),
    [(POINT, CLOUD), (CLOUD, POINT), (POINT, POINT), (0 * POINT, CLOUD), (ROUNDED, CLOUD), (LINE, CLOUD), (LINE, LINE)],
)
def test_alignment_is_finite_with_finite_gradients_on_degenerate_points(source: Tensor, target: Tensor) -> None:
    source, target = source.clone().requires_grad_(), target.clone().requires_grad_()
    aligned = align_similarity(source, target)
    (aligned * torch.randn(22, 3)).sum().backward()
    assert aligned.isfinite().all()
    assert source.grad.isfinite().all()
    assert target.grad.isfinite().all()
    if any(points.allclose(points[:1]) for points in (source, target)):
        assert_close(aligned, target.mean(0).expand(22, 3), rtol=0.0, atol=1e-5)


def test_alignment_gradient_is_the_numerical_one() -> None:
    source, target = bodies(1, 2, frames=1)[:, 0], bodies(2, 2, frames=1)[:, 0]
    assert torch.autograd.gradcheck(align_similarity, (source.requires_grad_(), target.requires_grad_()))


def test_alignment_keeps_float32_under_autocast() -> None:
    source, target = bodies(1, frames=4).float(), bodies(2, frames=4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        aligned = align_similarity(source, target)
    assert_close(aligned, align_similarity(source, target), rtol=0.0, atol=1e-6)


@few
@seeded
def test_errors_are_zero_at_identity_and_unmoved_by_a_rigid_motion_of_both(seed: int) -> None:
    pred, true = bodies(seed, 2), bodies(seed + 1, 2)
    _, R, shift = similarity(seed)
    for name in PAIRED:
        assert call(name, pred, pred).max() < 1e-4, name
        moved = call(name, pred @ R.mT + shift, true @ R.mT + shift)
        assert_close(moved, call(name, pred, true), rtol=1e-8, atol=0.0, msg=name)
    assert_close(call("jitter", pred @ R.mT + shift), call("jitter", pred), rtol=1e-8, atol=0.0)


@few
@seeded
def test_symmetry(seed: int) -> None:
    pred, true = bodies(seed), bodies(seed + 1)
    for name in ("mpjpe", "mpjve", "head_error"):
        assert_close(call(name, pred, true), call(name, true, pred))


@few
@seeded
def test_pa_mpjpe_ignores_any_similarity_of_the_prediction_and_is_at_most_mpjpe_of_a_similar_one(seed: int) -> None:
    pred, true = bodies(seed, 3), bodies(seed + 1)
    scale, R, shift = similarity(seed)
    per_frame_shift = shift + bodies(seed + 2)[:, :1]
    pa = metrics.pa_mpjpe(pred, true)
    assert_close(metrics.pa_mpjpe(scale * pred @ R.mT + per_frame_shift, true), pa, rtol=1e-8, atol=0.0)
    perfect = scale * true @ R.mT + shift
    assert metrics.pa_mpjpe(perfect, true) < 1e-6
    assert_close(metrics.pa_mpjpe_egoallo(perfect, true), metrics.mpjpe(perfect, true))
    # Procrustes minimises squares, so only the root mean square is bound to fall; far apart, the mean falls too.
    assert (pa < metrics.mpjpe(pred + 1, true)).all()

    def rms(a):
        return (a - true).square().mean(dim=(-3, -2, -1)).sqrt()

    assert (rms(align_similarity(pred, true)) <= rms(pred)).all()


def test_pa_mpjpe_of_a_mirrored_body_is_not_zero() -> None:
    true = bodies(0)
    assert metrics.pa_mpjpe(true * torch.tensor([1.0, -1.0, 1.0]), true) > 50


def test_a_shifted_perfect_pose() -> None:
    true = bodies(0)
    pred = true + torch.tensor([0.06, 0.0, 0.08])
    for name in ("mpjpe", "pa_mpjpe_egoallo", "head_error"):
        assert_close(call(name, pred, true).item(), 100.0)
    assert metrics.pa_mpjpe(pred, true) < 1e-6


def test_joints_pick_what_counts() -> None:
    true, pred = still(), still()
    pred[:, HEAD, 0] += 0.22
    assert_close(metrics.mpjpe(pred, true).item(), 10.0)
    assert_close(metrics.mpjpe(pred, true, joints=[HEAD, 0]).item(), 110.0)
    assert_close(metrics.head_error(pred, true).item(), 220.0)
    assert metrics.mpjpe(pred, true, joints=range(HEAD)) == 0


# ---- velocity, rotation, jerk


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_mpjve_of_a_constant_velocity_difference(fps: float) -> None:
    time = torch.arange(6)[:, None, None] / fps
    pred = still(6) + time * torch.tensor([0.3, 0.0, 0.4])
    assert_close(metrics.mpjve(pred, still(6), fps).item(), 500.0, rtol=1e-4, atol=0.0)
    assert_close(metrics.mpjve(pred, pred + 5.0, fps).item(), 0.0, rtol=0.0, atol=0.1)


@pytest.mark.parametrize("degrees", [0.0, 0.01, 30.0, 90.0, 179.0])
def test_mpjre_of_a_known_angle(degrees: float) -> None:
    axis = torch.tensor([1.0, 2.0, -2.0]) / 3
    true = roma.random_rotmat((4, 21))
    turned = true @ roma.rotvec_to_rotmat(axis * np.deg2rad(degrees))
    tolerance = {"rtol": 0.0, "atol": 5e-3}
    assert_close(metrics.mpjre(turned, true).item(), degrees, **tolerance)
    one = true.clone()
    one[:, 3] = turned[:, 3]
    assert_close(metrics.mpjre(one, true).item(), degrees / 21, **tolerance)
    assert_close(metrics.mpjre(one, true, joints=[3, 4]).item(), degrees / 2, **tolerance)


@few
@seeded
def test_mpjre_is_the_mean_angle_of_scipy_and_unmoved_by_a_common_rotation(seed: int) -> None:
    a, b = (Rotation.random(20, rng=np.random.default_rng(seed + i)) for i in (0, 1))

    def as_tensor(r):
        return torch.from_numpy(r.as_matrix()).view(4, 5, 3, 3)

    pred, true, R = as_tensor(a), as_tensor(b), similarity(seed)[1]
    expected = np.rad2deg((a * b.inv()).magnitude()).mean()
    assert_close(metrics.mpjre(pred, true).item(), expected, rtol=1e-8, atol=0.0)
    assert_close(metrics.mpjre(true, pred).item(), expected, rtol=1e-8, atol=0.0)
    assert_close(metrics.mpjre(R @ pred, R @ true).item(), expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_jitter_of_cubic_and_quadratic_motion(fps: float) -> None:
    time = torch.arange(10, dtype=torch.float64)[:, None, None] / fps
    cubic = time**3 * torch.tensor([2.0, 0.0, 0.0]) + still(10)
    assert_close(metrics.jitter(cubic, fps).item(), 0.12, rtol=1e-8, atol=0.0)  # 12 m/s^3
    assert metrics.jitter(9.81 * time**2 - 3 * time + still(10), fps) < 1e-8
    cubic[:, 1:] = 1.0
    assert_close(metrics.jitter(cubic, fps).item(), 0.12 / 22, rtol=1e-8, atol=0.0)


# ---- ground and feet


def test_ground_penetration_of_known_depth() -> None:
    positions = still(5)
    positions[1:4, L_TOE, 2] = torch.tensor([-0.01, -0.02, 0.0])
    positions[2, R_TOE, 2] = -0.05
    assert_close(metrics.ground_penetration(positions).item(), 0.08)
    assert_close(metrics.ground_penetration(positions, joints=[L_TOE]).item(), 0.03)
    assert_close(metrics.ground_penetration(positions, per_frame=True).item(), 0.016)
    mask = torch.tensor([True, True, False, True, True])
    assert_close(metrics.ground_penetration(positions, mask, per_frame=True).item(), 0.0025)


def test_ground_penetration_of_a_sunken_sphere_of_joints() -> None:
    """Points spread evenly over a sphere of radius r sunk by d: the mean depth is d^2 / 4r by integration."""
    radius, depth, count = 0.5, 0.2, 20000
    height = radius - depth + radius * torch.linspace(-1, 1, count, dtype=torch.float64)  # Archimedes: z is uniform
    sphere = torch.stack([torch.zeros(count), torch.zeros(count), height], dim=-1)[None]
    assert_close(metrics.ground_penetration(sphere).item() / count, depth**2 / (4 * radius), rtol=1e-3, atol=0.0)


def test_foot_skating_of_a_known_slide() -> None:
    positions = still(5)
    positions[:, L_TOE, 2] = torch.tensor([0.018, 0.018, 0.018, 0.05, 0.018])
    positions[:, L_TOE, :2] = torch.arange(5)[:, None] * torch.tensor([0.03, 0.04])
    # Steps of 5 cm; low in both frames only for the first two, low at the later frame also for the last.
    assert_close(metrics.foot_skating(positions).item(), 0.10)
    assert_close(metrics.foot_skating(positions, per_frame=True).item(), 0.025)
    assert_close(metrics.foot_skating(positions, height=0.06).item(), 0.20)
    assert metrics.foot_skating(positions, joints=[L_ANKLE]) == 0
    mask = torch.tensor([True, False, True, True, True])
    assert metrics.foot_skating(positions, mask) == 0
    positions[:, HEAD, :2] = positions[:, L_TOE, :2]  # what is no foot does not skate
    positions[:, HEAD, 2] = 0.0
    assert_close(metrics.foot_skating(positions).item(), 0.10)


@few
@seeded
def test_foot_skating_ignores_turning_and_shifting_about_the_vertical(seed: int) -> None:
    positions = bodies(seed)
    angle = float(torch.rand((), generator=torch.Generator().manual_seed(seed))) * 6
    R = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle], dtype=torch.float64))
    moved = positions @ R.mT + torch.tensor([3.0, -2.0, 0.0])
    for name in ("foot_skating", "ground_penetration", "ground_contact_egoallo"):
        assert call(name, positions) > 0
        assert_close(call(name, moved), call(name, positions), rtol=1e-8, atol=0.0)
    lifted = positions + torch.tensor([0.0, 0.0, 7.0])  # EgoAllo drops the body to the floor, so height is nothing
    assert_close(call("foot_skating_egoallo", lifted[None]), call("foot_skating_egoallo", positions[None]))


def test_foot_skating_egoallo_by_hand() -> None:
    positions = still(3)[None]
    positions[0, :, L_TOE] = torch.tensor([[0.0, 0.0, 0.5], [0.03, -0.04, 0.52], [0.03, 0.06, 0.5]])
    # Floor at 0.5: the first step (0.07 by L1) ends 2 cm up, half the toe's limit, the second (0.10) on the floor.
    assert_close(metrics.foot_skating_egoallo(positions).item(), 0.07 * (2 - 2**0.5) + 0.10)
    positions[0, :, 0, 2] = 0.0  # the root is not asked for the floor
    assert_close(metrics.foot_skating_egoallo(positions).item(), 0.07 * (2 - 2**0.5) + 0.10)
    padded = torch.cat([positions, torch.full_like(positions, -9.0)], dim=1)  # nor are frames that do not count
    mask = torch.arange(6) < 3
    assert_close(metrics.foot_skating_egoallo(padded, mask).item(), 0.07 * (2 - 2**0.5) + 0.10)
    lower = torch.cat([positions, positions - torch.tensor([0.0, 0.0, 0.04])])  # another sample lowers the floor
    assert_close(metrics.foot_skating_egoallo(lower), torch.tensor([0.0, 0.07 * (2 - 2**0.5) + 0.10]))


def test_ground_contact_egoallo_by_hand() -> None:
    positions = still().repeat(4, 1, 1, 1)
    positions[1, 2, L_TOE, 2] = 0.05  # over the toes' limit, under the ankles'
    positions[2, 2, L_ANKLE, 2] = 0.05
    positions[3, 2, L_TOE, 2] = -0.01
    assert metrics.ground_contact_egoallo(positions).tolist() == [0, 0, 1, 1]
    mask = torch.arange(5) != 2
    assert metrics.ground_contact_egoallo(positions, mask).tolist() == [0, 0, 0, 0]


# ---- diversity


def test_diversity_by_hand() -> None:
    motions = torch.zeros(2, 3, 4, 2)
    motions[0, 1, 0] = torch.tensor([3.0, 4.0])  # pairs 0-1 and 1-2 are 5 apart, 0-2 is not
    assert_close(metrics.diversity(motions), torch.tensor([10 / 3, 0.0]))
    mask = torch.tensor([[False, True, True, True], [True] * 4])
    assert metrics.diversity(motions, mask).tolist() == [0, 0]
    assert metrics.diversity(motions[:, :1]).isnan().all()


def test_diversity_sees_small_differences_in_a_large_group() -> None:
    base = torch.full((128, 226), 1.0)
    motions = base + 1e-3 * torch.arange(32)[:, None, None]
    gap = sum(abs(i - j) for i in range(32) for j in range(32)) / (32 * 31)
    assert_close(metrics.diversity(motions).item(), gap * 1e-3 * (128 * 226) ** 0.5, rtol=1e-3, atol=0.0)


def test_spread_by_hand() -> None:
    samples = torch.zeros(2, 3, 4, 22, 3)
    samples[0, 0, ..., 0], samples[0, 1, ..., 0] = 0.3, -0.3  # the third is in the middle: 300, 300 and 0 mm
    samples[1, :, 2, 5] = torch.tensor([[0.0, 0.0, 0.9], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # 600, 300, 300 mm, once
    assert_close(metrics.spread(samples), torch.tensor([200.0, 400.0 / (4 * 22)]))
    assert_close(metrics.spread(samples, joints=(5, 6)), torch.tensor([200.0, 400.0 / (4 * 2)]))
    assert metrics.spread(samples, joints=(4,)).tolist() == [pytest.approx(200.0), 0.0]
    mask = torch.tensor([[True] * 4, [True, False, True, False]])
    samples[1, 1, 1] = torch.nan
    assert_close(metrics.spread(samples, mask), torch.tensor([200.0, 400.0 / (2 * 22)]))
    assert metrics.spread(samples[:, :1], mask).tolist() == [0.0, 0.0]


def test_joint_groups_share_out_the_body() -> None:
    parts = [joint for name, group in metrics.JOINT_GROUPS.items() if name != "all" for joint in group]
    assert sorted(parts) == list(metrics.JOINT_GROUPS["all"]) == list(range(22))


# ---- masks


@few
@given(seed=st.integers(0, 2**31 - 1), garbage=st.sampled_from([float("nan"), float("inf"), -1e6]))
def test_padding_changes_nothing(seed: int, garbage: float) -> None:
    pred, true = bodies(seed, 2, 3), bodies(seed + 1, 2, 3)

    def pad(x):
        return torch.cat([torch.full_like(x[..., :2, :, :], garbage), x], dim=-3)

    mask = torch.tensor([False] * 2 + [True] * 12)
    for name in PAIRED:
        assert_close(call(name, pad(pred), pad(true), mask=mask), call(name, pred, true), msg=name)
    for name in SINGLE:
        assert_close(call(name, pad(pred), mask=mask), call(name, pred), msg=name)
    assert_close(metrics.diversity(pad(pred).flatten(-2), mask), metrics.diversity(pred.flatten(-2)))
    pred, true = roma.random_rotmat((2, 12, 21)), roma.random_rotmat((2, 12, 21))
    padded = (torch.cat([torch.full_like(x[:, :2], garbage), x], dim=1) for x in (pred, true))
    assert_close(metrics.mpjre(*padded, mask=mask), metrics.mpjre(pred, true))


def test_derivatives_do_not_reach_across_a_gap() -> None:
    pred, true = bodies(0, frames=15), bodies(1, frames=15)
    mask = torch.arange(15) != 6  # 6 and 8 frames: 5 and 7 velocities, 3 and 5 jerks
    parts = slice(0, 6), slice(7, 15)
    velocity = sum(w * metrics.mpjve(pred[s], true[s], FPS) for w, s in zip((5, 7), parts, strict=True)) / 12
    assert_close(metrics.mpjve(pred, true, FPS, mask), velocity)
    jerk = sum(w * metrics.jitter(pred[s], FPS) for w, s in zip((3, 5), parts, strict=True)) / 8
    assert_close(metrics.jitter(pred, FPS, mask), jerk)
    assert_close(metrics.foot_skating(pred, mask), sum(metrics.foot_skating(pred[s]) for s in parts))


def test_masks_differ_by_row_and_leave_finite_gradients() -> None:
    pred, true = bodies(0, 2), bodies(1, 2)
    pred[1, 8:] = float("nan")
    pred.requires_grad_()
    mask = torch.tensor([[True] * 12, [True] * 8 + [False] * 4])
    for name in PAIRED:
        values = call(name, pred, true, mask=mask)
        assert_close(values[1], call(name, pred[1, :8], true[1, :8]), msg=name)
        (gradient,) = torch.autograd.grad(values.sum(), pred)
        assert gradient.isfinite().all(), name
        assert (gradient[1, 8:] == 0).all(), name


def test_means_over_nothing_are_nan_and_sums_zero() -> None:
    pred, true, nothing = bodies(0), bodies(1), torch.zeros(12, dtype=torch.bool)
    for name in PAIRED:
        assert call(name, pred, true, mask=nothing).isnan(), name
    assert metrics.jitter(pred[:3], FPS).isnan()
    assert metrics.jitter(pred[:3], FPS, nothing[:3]).isnan()
    assert metrics.mpjve(pred[:1], true[:1], FPS).isnan()
    for name in ("ground_penetration", "foot_skating", "ground_contact_egoallo"):
        assert call(name, pred, mask=nothing) == 0, name
    assert metrics.foot_skating_egoallo(pred[None], nothing) == 0


# ---- all at once


def test_motion_metrics_is_every_metric_once_a_sequence() -> None:
    skeleton = Skeleton.default()
    local = roma.rotvec_to_rotmat(0.2 * torch.randn(4, 9, 52, 3))
    body = forward_kinematics(skeleton.rest_joints(torch.zeros(16)), local, 0.01 * torch.randn(4, 9, 3))
    pred, true, pred_R, true_R = body.joints[:3], body.joints[3], local[:3], local[3]
    mask = torch.arange(9) < 7
    values = metrics.motion_metrics(pred_R, pred, true_R, true, FPS, mask)
    assert {*values, "diversity"} == set(metrics.METRIC_UNITS)
    for name, value in values.items():
        assert value.shape == (3,), name
        if name in PAIRED:
            assert_close(value, call(name, pred[..., :22, :], true[..., :22, :], mask=mask), msg=name)
    assert_close(values["mpjre"], metrics.mpjre(pred_R[..., 1:22, :, :], true_R[..., 1:22, :, :], mask))
    assert_close(values["foot_skating_egoallo"][1:2], metrics.foot_skating_egoallo(pred[1:2], mask))
    for count, first in ((22, 0), (21, 1)):
        rotmats = [R[..., first : first + count, :, :] for R in (pred_R, true_R)]
        again = metrics.motion_metrics(rotmats[0], pred[..., :22, :], rotmats[1], true[..., :22, :], FPS, mask)
        assert_close(again, values)
    alone = metrics.motion_metrics(pred_R[1], pred[1], true_R, true, FPS, mask)
    assert_close(alone, {name: value[1] for name, value in values.items()})


def test_motion_metrics_refuses_other_joint_sets() -> None:
    R, positions = torch.eye(3).expand(5, 22, 3, 3), still()
    with pytest.raises(ValueError, match="22 or 52 joints, root first; pred_joints has 21"):
        metrics.motion_metrics(R, positions[:, :21], R, positions[:, :21], FPS)
    with pytest.raises(ValueError, match="pred_rotmats has 20"):
        metrics.motion_metrics(R[:, :20], positions, R[:, :20], positions, FPS)
