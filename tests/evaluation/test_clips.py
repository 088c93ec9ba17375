"""Scores, means and baselines against what can be said of them by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler, Motion
from motion_grpo.body import cpf_of
from motion_grpo.data import Clip
from motion_grpo.evaluation import (
    ClipScores,
    NearestNeighbour,
    PipelineSystem,
    bootstrap_interval,
    clip_generators,
    clip_name,
    evaluate_clip,
    ground_truth,
    head_trajectory,
    mean_pose,
    score,
    smoothed,
    summarize,
    summarize_samples,
    upright,
    windows_of,
)
from motion_grpo.geometry.rotations import heading
from motion_grpo.metrics import JOINT_GROUPS, METRIC_UNITS
from motion_grpo.models.conditioning import head_features
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.evaluation.setup import raised
from tests.tiny import moving_clip, tiny_denoiser

ERRORS = ("mpjpe", "pa_mpjpe", "pa_mpjpe_egoallo", "mpjve", "mpjre", "head_error")

Z = torch.tensor([0.0, 0.0, 1.0])


def bent(frames: int, degrees: torch.Tensor | float, betas: float = 0.0, name: str = "bent") -> Clip:
    """A body whose every joint is turned about z by one angle, or by one a frame, on the path of a moving clip."""
    motion = moving_clip(frames).motion
    angles = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32)).expand(frames)
    rotmats = roma.rotvec_to_rotmat(angles[:, None, None] * Z.expand(21, 3))
    return Clip(name, "tiny", replace(motion, body_rotmats=rotmats, betas=torch.full((16,), betas)))


def angles_about_z(motion: Motion) -> torch.Tensor:
    """Degrees, (frames, 21); fails if the axis is another one."""
    rotvecs = torch.rad2deg(roma.rotmat_to_rotvec(motion.body_rotmats))
    assert_close(rotvecs[..., :2], torch.zeros_like(rotvecs[..., :2]), atol=1e-3, rtol=0)
    return rotvecs[..., 2]


def assert_hangs_from_head(motion: Motion, clip: Clip) -> None:
    head = head_trajectory(clip)
    R, p = cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))
    assert_close(R, head.R_world_cpf, atol=1e-5, rtol=0)
    assert_close(p, head.p_world_cpf, atol=1e-5, rtol=0)


def test_the_truth_against_itself_has_no_error() -> None:
    clip = moving_clip(40)
    scores = evaluate_clip(ground_truth, clip)
    assert (scores.clip, scores.source, scores.frames) == ("clip0", "tiny", 40)
    assert set(scores.metrics) == set(METRIC_UNITS) - {"diversity"}
    for name in ERRORS:
        assert scores.metrics[name] == pytest.approx([0.0], abs=1e-3), name
    assert scores.metrics["jitter"][0] > 0


def test_a_shifted_motion_scores_its_shift() -> None:
    clip = moving_clip(40)
    shifted = replace(clip.motion, root_positions=clip.motion.root_positions + torch.tensor([0.1, 0.0, 0.0]))
    scores = score([clip.motion, shifted], clip)
    for name in ("mpjpe", "head_error", "pa_mpjpe_egoallo"):
        assert scores[name] == pytest.approx([0.0, 100.0], abs=0.01), name
    for name in ("pa_mpjpe", "mpjve", "mpjre"):
        assert scores[name] == pytest.approx([0.0, 0.0], abs=0.05), name


def test_the_prediction_is_posed_with_its_own_betas() -> None:
    clip = moving_clip(30)
    taller = replace(clip.motion, betas=clip.motion.betas + 1.0)
    expected = (taller.joints - clip.motion.joints)[:, :22].norm(dim=-1).mean() * 1000
    assert score([taller], clip)["mpjpe"] == pytest.approx([float(expected)], rel=1e-4)
    assert expected > 10


def test_the_head_is_the_eyes_of_the_true_body() -> None:
    clip = moving_clip(30, seed=3)
    head = head_trajectory(clip)
    assert_hangs_from_head(clip.motion, clip)
    assert (head.floor_height, head.source, len(head)) == (0.0, "clip3", 30)
    distance = (head.p_world_cpf - clip.motion.joints[:, 15]).norm(dim=-1)
    assert_close(distance, distance[:1].expand(30), atol=1e-5, rtol=0)
    assert 0.05 < distance[0] < 0.2


@pytest.mark.parametrize("height", [0.7, -1.4])
@pytest.mark.parametrize("name", ["pipeline", "mean_pose", "nearest", "upright", "smoothed", "ground_truth"])
def test_a_clip_scores_the_same_wherever_its_floor_is(name: str, height: float) -> None:
    clip, train = moving_clip(40, seed=5), [moving_clip(50, seed) for seed in range(3)]
    systems: dict[str, Callable] = {
        "pipeline": lambda data: PipelineSystem(tiny_pipeline(), seeds=(0, 1)),
        "mean_pose": mean_pose,
        "nearest": NearestNeighbour,
        "upright": lambda data: upright,
        "smoothed": lambda data: smoothed(PipelineSystem(tiny_pipeline(), seeds=(0,))),
        "ground_truth": lambda data: ground_truth,
    }
    low = systems[name](train)
    high = systems[name]([raised(other, 0.2 * number) for number, other in enumerate(train)])
    there = raised(clip, height)
    before, after = evaluate_clip(low, clip), evaluate_clip(high, there)
    for metric, values in before.metrics.items():
        assert after.metrics[metric] == pytest.approx(values, rel=1e-3, abs=0.02), metric
    # And what it returns is in the clip's own world, as a file of it would be.
    for motion in high(there):
        assert motion.floor_height == height
        assert_close(motion.joints[:, 15, 2], there.motion.joints[:, 15, 2], atol=0.2, rtol=0)


def test_motions_that_do_not_fit_are_refused() -> None:
    clip = moving_clip(20)
    with pytest.raises(ValueError, match=r"Motion 1 for clip clip0 has 12 frames at 30 fps; clip clip0 has 20 frames"):
        score([clip.motion, moving_clip(12).motion], clip)
    slow = replace(clip.motion, timestamps=clip.motion.timestamps * 2)
    with pytest.raises(ValueError, match="has 20 frames at 15 fps"):
        score([slow], clip)
    with pytest.raises(ValueError, match="Clip slow has 20 frames at 15 fps; at least 4 at 30 fps are needed"):
        score([slow], Clip("slow", "tiny", slow))
    with pytest.raises(ValueError, match="Clip clip0 has 3 frames"):
        score([moving_clip(3).motion], moving_clip(3))
    with pytest.raises(ValueError, match="no motion to score for clip clip0"):
        score([], clip)
    broken = clip.motion.body_rotmats.clone()
    broken[7] = torch.nan
    with pytest.raises(ValueError, match="for clip clip0 holds NaN"):
        score([replace(clip.motion, body_rotmats=broken)], clip)


def rows(*values: list[float], frames: int = 10) -> list[ClipScores]:
    return [ClipScores(f"c{i}", "s", frames * (i + 1), {"mpjpe": v, "jitter": v}) for i, v in enumerate(values)]


def test_every_clip_counts_the_same_however_long_or_often_drawn() -> None:
    summary = summarize(rows([1.0, 3.0], [10.0, 10.0, 10.0]))
    assert summary["mpjpe"].mean == 6.0
    assert (summary["mpjpe"].lo, summary["mpjpe"].hi) == (2.0, 10.0)
    assert (summary["mpjpe"].unit, summary["jitter"].unit) == ("mm", "100 m/s^3")


def test_interval_is_that_of_a_mean_over_clips() -> None:
    values = np.random.default_rng(3).normal(100, 20, 200)
    estimate = summarize(rows(*([v - 5, v + 5] for v in values.tolist())))["mpjpe"]
    half_width = 1.96 * values.std() / np.sqrt(200)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.lo == pytest.approx(values.mean() - half_width, abs=0.15 * half_width)
    assert estimate.hi == pytest.approx(values.mean() + half_width, abs=0.15 * half_width)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_interval_is_repeatable_and_within_the_clips(values: list[float]) -> None:
    scores = rows(*([v] for v in values))
    estimate = summarize(scores, resamples=200)["mpjpe"]
    assert estimate == summarize(scores, resamples=200)["mpjpe"]
    rounding = 1e-9 * (1 + max(values))
    assert min(values) - rounding <= estimate.lo <= estimate.hi <= max(values) + rounding
    if len(values) == 1:
        assert estimate.lo == estimate.hi == estimate.mean


def test_windows_of_one_clip_are_drawn_together() -> None:
    # The mean is over windows; the interval has no width where all are of one clip, and that of clips where of two.
    scores = rows([1.0], [3.0], [8.0])
    estimate = summarize(scores, ["a", "a", "a"])["mpjpe"]
    assert (estimate.mean, estimate.lo, estimate.hi) == (4.0, 4.0, 4.0)
    estimate = summarize(scores, ["a", "a", "b"])["mpjpe"]
    assert (estimate.mean, estimate.lo, estimate.hi) == (4.0, 2.0, 8.0)
    lo, hi = bootstrap_interval(np.array([[1.0], [3.0], [8.0]]), ["a", "a", "b"])
    assert (lo.tolist(), hi.tolist()) == ([2.0], [8.0])


def test_nothing_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no scores"):
        summarize([])


def apart(clip: Clip, distance: float, joint: int) -> list[Motion]:
    """Two motions whose joint is turned about z by as much to either side; those below it follow."""
    motions = []
    for side in (-1.0, 1.0):
        turned = clip.motion.body_rotmats.clone()
        turned[:, joint - 1] = turned[:, joint - 1] @ roma.rotvec_to_rotmat(side * distance * Z)
        motions.append(replace(clip.motion, body_rotmats=turned))
    return motions


def test_spread_and_error_of_samples_by_hand() -> None:
    clip = moving_clip(20)
    moved = [
        replace(clip.motion, root_positions=clip.motion.root_positions + torch.tensor([x, 0.0, 0.0]))
        for x in (0.1, 0.3)
    ]
    scores = evaluate_clip(lambda _: moved, clip)
    # Samples 100 mm from their mean on either side, which is 200 mm off.
    assert scores.spread == pytest.approx(dict.fromkeys(JOINT_GROUPS, 100.0), abs=0.01)
    assert scores.error == pytest.approx(dict.fromkeys(JOINT_GROUPS, 200.0), abs=0.01)
    found = summarize_samples([scores])
    assert found.samples == 2
    assert found.best_mpjpe.mean == pytest.approx(100.0, abs=0.01)
    assert {name: of.mean for name, of in found.ratio.items()} == pytest.approx(dict.fromkeys(JOINT_GROUPS, 0.5))
    assert found.ratio["all"].lo == pytest.approx(found.ratio["all"].hi)


def test_only_joints_that_differ_have_a_spread() -> None:
    clip = bent(20, 10.0)
    scores = evaluate_clip(lambda _: apart(clip, 0.3, joint=18), clip)  # the left elbow, which moves the wrist
    assert {name for name, value in scores.spread.items() if value > 0.01} == {"all", "arms"}
    forearm = (clip.motion.joints[:, 20] - clip.motion.joints[:, 18]).norm(dim=-1).mean()
    # The wrist is a chord of 0.3 rad off, one of six joints of the group; the mean of both lies between them.
    assert scores.error["arms"] == pytest.approx(float(forearm) * 2 * np.sin(0.15) * 1000 / 6, rel=0.05)
    assert scores.spread["arms"] == pytest.approx(scores.error["arms"], rel=0.05)


def test_ratios_are_of_means_and_one_sample_has_none() -> None:
    scores = [
        ClipScores("a", "s", 9, {"mpjpe": [4.0, 2.0]}, spread={"all": 1.0}, error={"all": 3.0}),
        ClipScores("b", "s", 9, {"mpjpe": [8.0, 9.0]}, spread={"all": 5.0}, error={"all": 9.0}),
    ]
    found = summarize_samples(scores)
    assert (found.best_mpjpe.mean, found.spread["all"].mean, found.error["all"].mean) == (5.0, 3.0, 6.0)
    assert found.ratio["all"].mean == 0.5
    assert (found.ratio["all"].lo, found.ratio["all"].hi) == (pytest.approx(1 / 3), pytest.approx(5 / 9))
    assert summarize_samples(rows([1.0])) is None


def test_windows_do_not_overlap_and_the_rest_is_left_out() -> None:
    clip = replace(moving_clip(37), content="walk", subject="me")
    windows = windows_of(clip, 12)
    assert [(w.id, w.clip_id, w.start) for w in windows] == [(f"clip0/{n}", "clip0", n) for n in (0, 12, 24)]
    assert all((w.source, w.content, w.subject) == ("tiny", "walk", "me") for w in windows)
    joints = torch.cat([w.motion.joints for w in windows])
    assert_close(joints, clip.motion.joints[:36], atol=0, rtol=0)
    assert [float(w.motion.timestamps[0]) for w in windows] == [0.0, 0.0, 0.0]
    assert all(w.motion.fps == pytest.approx(30) for w in windows)
    assert len(windows_of(clip, 37)) == 1
    assert windows_of(clip, 38) == []
    with pytest.raises(ValueError, match="A window of 3 frames has no jitter"):
        windows_of(clip, 3)


def test_clips_of_one_id_and_two_sources_are_two() -> None:
    one, two = moving_clip(20), replace(moving_clip(20), source="other")
    noise = [torch.randn(4, generator=clip_generators(clip, (0,))[0]) for clip in (one, two)]
    assert not torch.equal(*noise)
    assert [clip_name(clip) for clip in (one, two)] == ["tiny/clip0", "other/clip0"]
    assert clip_name(replace(one, id="tiny/clip0")) == "tiny/clip0"


def tiny_pipeline() -> EgoMotionPipeline:
    torch.manual_seed(0)
    scheduler = EgoMotionSDEScheduler(timestep_spacing="trailing", eta=1.0)
    return EgoMotionPipeline(tiny_denoiser(), scheduler, num_inference_steps=2, window=16, overlap=4)


def test_a_sample_depends_on_its_clip_and_seed_alone() -> None:
    pipeline, clip = tiny_pipeline(), moving_clip(24)
    together = PipelineSystem(pipeline, seeds=(0, 1, 7))(clip)
    alone = PipelineSystem(pipeline, seeds=(7,))(clip)
    assert len(together) == 3
    assert_close(together[2].joints, alone[0].joints, atol=1e-5, rtol=0)
    assert (together[0].joints - together[1].joints).abs().max() > 0.01
    namesake = PipelineSystem(pipeline, seeds=(7,))(replace(clip, id="other"))
    assert (namesake[0].joints - alone[0].joints).abs().max() > 0.01


def test_steps_and_eta_replace_the_pipelines_own() -> None:
    pipeline, clip = tiny_pipeline(), moving_clip(20)

    def run(**changes):
        return PipelineSystem(pipeline, seeds=(0,), **changes)(clip)[0].joints

    assert_close(run(), run(num_inference_steps=2, eta=1.0))
    assert not torch.equal(run(), run(eta=0.0))
    assert not torch.equal(run(eta=0.0), run(eta=0.0, num_inference_steps=3))
    generators = clip_generators(clip, (0,))
    direct = pipeline(head_trajectory(clip), generator=generators).motion
    assert_close(direct.joints, run(), atol=1e-6, rtol=0)


def test_mean_pose_by_hand() -> None:
    # Two frames at 40 degrees for one at -20: the mean direction of the three, and betas (2 * 0.3 - 0.6) / 3 = 0.
    system = mean_pose([bent(20, 40.0, 0.3), bent(10, -20.0, -0.6)])
    expected = np.rad2deg(np.angle(2 * np.exp(1j * np.deg2rad(40)) + np.exp(-1j * np.deg2rad(20))))
    clip = moving_clip(25, seed=4)
    (motion,) = system(clip)
    assert_close(angles_about_z(motion), torch.full((25, 21), float(expected)), atol=1e-3, rtol=0)
    assert_close(motion.betas, torch.zeros(16), atol=1e-6, rtol=0)
    assert_hangs_from_head(motion, clip)
    with pytest.raises(ValueError, match="no training clips"):
        mean_pose([])


def test_upright_is_the_rest_pose_with_arms_down_under_the_head() -> None:
    clip = moving_clip(25, seed=4)
    (motion,) = upright(clip)
    head = head_trajectory(clip)
    body = motion.body
    rest, joints = body.rest_joints(torch.zeros(16)), motion.joints
    assert_close(motion.betas, torch.zeros(16))
    assert_hangs_from_head(motion, clip)
    # The body stands upright (its own y is up) and faces the head's heading.
    R = motion.root_rotmats
    assert_close(R[:, 2], torch.tensor([0.0, 1.0, 0.0]).expand(25, 3), atol=1e-5, rtol=0)
    assert_close(heading(R), heading(head.R_world_cpf), atol=1e-5, rtol=0)
    # Nothing is bent but the arms: every joint is as high over the others as in the rest pose.
    still = [j for j in range(22) if j not in (18, 19, 20, 21)]
    heights = joints[:, still, 2] - joints[:, :1, 2]
    assert_close(heights, (rest[still, 1] - rest[0, 1]).expand(25, -1), atol=1e-5, rtol=0)
    for shoulder, elbow, wrist in ((16, 18, 20), (17, 19, 21)):
        reach = (rest[wrist] - rest[shoulder])[0].abs()
        assert_close(joints[:, shoulder, 2] - joints[:, wrist, 2], reach.expand(25), atol=1e-4, rtol=0)
        assert bool((joints[:, elbow, 2] < joints[:, shoulder, 2] - 0.2).all())


def test_upright_does_not_bend_with_the_head() -> None:
    clip = bent(20, 0.0)
    nodding = clip.motion.body_rotmats.clone()
    nodding[:, 14] = roma.rotvec_to_rotmat(torch.tensor([0.5, 0.0, 0.0]))  # the head joint, about its left
    motions = [upright(c)[0] for c in (clip, replace(clip, motion=replace(clip.motion, body_rotmats=nodding)))]
    assert_close(motions[0].root_rotmats, motions[1].root_rotmats, atol=1e-5, rtol=0)
    others = [joint for joint in range(21) if joint != 14]
    assert torch.equal(motions[0].body_rotmats[:, others], motions[1].body_rotmats[:, others])


@pytest.mark.parametrize("frames", [9, 32, 45, 83])
def test_nearest_neighbour_of_a_training_clip_is_itself(frames: int) -> None:
    train = [moving_clip(n, seed) for seed, n in enumerate((70, frames, 8, 51))]
    (motion,) = NearestNeighbour(train)(train[1])
    assert_close(motion.body_rotmats, train[1].motion.body_rotmats, atol=0, rtol=0)
    assert_close(motion.contacts, train[1].motion.contacts, atol=0, rtol=0)
    assert score([motion], train[1])["mpjpe"] == pytest.approx([0.0], abs=0.01)


def test_nearest_neighbour_is_the_one_with_the_most_similar_head() -> None:
    train = [moving_clip(64, seed) for seed in range(4)]
    # Turned and moved as a whole, which the features do not see, and a little disturbed, which they do.
    quarter = roma.rotvec_to_rotmat(torch.pi / 2 * Z)
    motion = train[2].motion
    moved = replace(
        motion,
        root_rotmats=quarter @ motion.root_rotmats,
        root_positions=motion.root_positions @ quarter.mT + torch.tensor([5.0, -3.0, 0.001]),
    )
    clip = Clip("query", "tiny", moved)
    (found,) = NearestNeighbour(train, chunk=16)(clip)
    assert_close(found.body_rotmats, motion.body_rotmats)
    assert_close(found.betas, motion.betas)
    assert_hangs_from_head(found, clip)
    with pytest.raises(ValueError, match="no training clips"):
        NearestNeighbour([])


def test_nearest_neighbour_is_the_nearest_by_brute_force() -> None:
    train = [moving_clip(n, seed) for seed, n in enumerate((70, 40, 51))]
    system, clip = NearestNeighbour(train, chunk=16), moving_clip(48, seed=9)
    head = head_trajectory(clip)
    features = head_features(HeadPoses.from_world(head.R_world_cpf, head.p_world_cpf), octaves=0)
    chunks = ((features - system.mean) / system.std).unflatten(0, (3, 16)).flatten(1)
    distances = (chunks[:, None].double() - system.windows.double()).square().sum(-1)
    rows = system.rows[distances.argmin(1)].flatten()
    (found,) = system(clip)
    assert_close(found.body_rotmats, system.rotmats[rows], atol=0, rtol=0)
    assert_close(found.betas, system.betas[rows].mean(0))
    assert_close(system.windows.mean(), torch.tensor(0.0), atol=0.1, rtol=0)


def test_smoothing_lowers_jitter_and_keeps_the_head() -> None:
    clip = moving_clip(60)
    noise = roma.rotvec_to_rotmat(0.05 * torch.randn(60, 21, 3))
    rough = replace(clip.motion, body_rotmats=clip.motion.body_rotmats @ noise)
    (smooth,) = smoothed(lambda _: [rough])(clip)
    before, after = score([rough], clip), score([smooth], clip)
    assert after["jitter"][0] < 0.2 * before["jitter"][0]
    assert after["mpjre"][0] < before["mpjre"][0]
    assert_hangs_from_head(smooth, clip)
    assert torch.equal(smooth.betas, rough.betas)
    # As many samples as the system has; no smoothing to speak of changes nothing.
    assert len(smoothed(lambda _: [rough, rough, rough])(clip)) == 3
    assert_close(smoothed(lambda _: [rough], 1e-3)(clip)[0].body_rotmats, rough.body_rotmats, atol=1e-6, rtol=0)


def test_smoothing_keeps_a_still_pose_and_a_steady_turn() -> None:
    still, turning = bent(30, 25.0), bent(30, torch.arange(30) * 2.0)
    assert_close(angles_about_z(smoothed(ground_truth)(still)[0]), torch.full((30, 21), 25.0), atol=1e-3, rtol=0)
    angles = angles_about_z(smoothed(ground_truth)(turning)[0])
    # Far from both ends, where the last frame is repeated.
    assert_close(angles[10:-10], torch.arange(30)[10:-10, None].expand(-1, 21) * 2.0, atol=1e-3, rtol=0)
