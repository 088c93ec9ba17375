"""Pairs, accuracy and severity curves, with critics whose verdicts are known beforehand."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.body import Skeleton
from motion_grpo.data import resample
from motion_grpo.evaluation import head_trajectory
from motion_grpo.evaluation.critic import (
    Pairs,
    accuracy,
    cut_windows,
    make_pairs,
    noticed,
    score_windows,
    scoring_cost,
    severity_curves,
)
from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.models import MotionPerceptualModel, MotionPerceptualModelOutput, perceptual_inputs
from motion_grpo.motion.artefacts import ARTEFACTS
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import moving_clip, tiny_denoiser

CLIPS = [moving_clip(frames, seed) for seed, frames in enumerate((30, 16, 21))]
IDS = ["clip0/0", "clip0/16", "clip1/0", "clip2/0"]
SMALL = {"window": 16, "min_frames": 8}


def pipeline_of(**scheduler) -> EgoMotionPipeline:
    settings = {"timestep_spacing": "trailing", "eta": 0.5} | scheduler
    denoiser = tiny_denoiser(mask_self_attention=True)
    return EgoMotionPipeline(denoiser, EgoMotionSDEScheduler(**settings), num_inference_steps=3, window=16, overlap=4)


@pytest.fixture(scope="module")
def pipeline() -> EgoMotionPipeline:
    torch.manual_seed(0)
    return pipeline_of()


@pytest.fixture(scope="module")
def pairs(pipeline) -> Pairs:
    return make_pairs(pipeline, CLIPS, **SMALL)


class Critic(MotionPerceptualModel):
    """Scores by a rule in place of a network."""

    def __init__(self, rule) -> None:
        super().__init__(d_latent=4, num_blocks=0, num_heads=1)
        self.rule = rule

    def forward(self, joints: Tensor, head: Tensor, mask: Tensor | None = None) -> MotionPerceptualModelOutput:
        return MotionPerceptualModelOutput(self.rule(joints, head, mask))


def constant(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
    return torch.full((len(joints),), 0.5)


def lowest_joint(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
    """Falls with every centimetre that the lowest joint sinks."""
    return torch.sigmoid(joints[..., 6].masked_fill(~mask[..., None], 9.0).amin((1, 2)))


# ---- windows


def test_windows_hold_the_clips_and_leave_glimpses_out() -> None:
    windows = cut_windows(CLIPS, **SMALL)
    assert windows.ids == IDS
    assert windows.clips == ["clip0", "clip0", "clip1", "clip2"]
    assert windows.truth.mask.sum(1).tolist() == [16, 14, 16, 16]
    assert windows.left_out == 1
    assert_close(windows.truth.joints[1, :14], CLIPS[0].motion.joints[16:, :22], rtol=0.0, atol=1e-5)
    assert cut_windows(CLIPS, 16, 5).ids == [*IDS, "clip2/16"]


def test_clips_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"Clip clip1 is at 15 fps.*30: resample"):
        cut_windows([CLIPS[0], replace(CLIPS[1], motion=resample(CLIPS[1].motion, 15.0))])
    other = replace(Skeleton.default(), name="another")
    with pytest.raises(ValueError, match="Clip clip1 is of the body 'another', clip clip0 of 'mannequin-x-symmetric'"):
        cut_windows([CLIPS[0], replace(CLIPS[1], motion=replace(CLIPS[1].motion, skeleton=other))])
    with pytest.raises(ValueError, match="None of the 3 clips has 31 frames"):
        cut_windows(CLIPS, 128, 31)


# ---- pairs


def test_pairs_are_the_recording_and_what_the_pipeline_draws_for_its_head(pairs, pipeline) -> None:
    truth = pairs.windows.truth
    assert_close(pairs.recorded[..., 4:], truth.joints[:, :, 1:])
    assert_close(pairs.head[..., 4:], truth.head.p_world_cpf)
    assert pairs.generated.shape == pairs.recorded.shape == (4, 16, 21, 7)
    assert (pairs.generated - pairs.recorded)[truth.mask].abs().amax((1, 2)).min() > 1e-2
    # The body hangs from the head: joint 15, the head joint, is as far from the eyes as in the recording, or nearly.
    reach = (pairs.generated[:, :, 14, 4:] - pairs.head[..., 4:]).norm(dim=-1)
    assert reach[truth.mask].max() < 0.5
    assert pairs.settings == {
        "seed": 0, "window": 16, "min_frames": 8, "num_inference_steps": 3, "eta": 0.5,
    }  # fmt: skip


def test_a_generated_window_is_the_pipelines_own_sample(pairs, pipeline) -> None:
    clip, name = CLIPS[1], "clip1/0"
    # A whole clip is one window of this pipeline, which gets the noise of the pair.
    wide = EgoMotionPipeline(pipeline.denoiser, pipeline.scheduler, num_inference_steps=3, window=32, overlap=4)
    wide.set_progress_bar_config(disable=True)
    seed = int.from_bytes(hashlib.sha256(f"0 {name}".encode()).digest()[:7], "big")
    motion = wide(head_trajectory(clip), generator=[torch.Generator().manual_seed(seed)]).motion
    generated = pairs.generated[IDS.index(name)]
    assert_close(generated[..., 4:], motion.joints[:, 1:22], rtol=0.0, atol=1e-4)
    assert_close(wxyz_to_matrix(generated[..., :4]), motion.body_rotmats, rtol=0.0, atol=1e-4)


def test_pairs_are_the_same_whatever_the_batch_and_the_order(pairs, pipeline) -> None:
    again = make_pairs(pipeline, CLIPS, **SMALL)
    assert again.digest == pairs.digest
    assert torch.equal(again.generated, pairs.generated)
    turned = make_pairs(pipeline, CLIPS[::-1], **SMALL, batch_size=1)
    rows = [turned.windows.ids.index(name) for name in IDS]
    real = pairs.windows.truth.mask
    assert_close(turned.generated[rows][real], pairs.generated[real], rtol=0.0, atol=1e-4)
    other = make_pairs(pipeline, CLIPS, seed=1, **SMALL)
    assert other.digest != pairs.digest
    assert (other.generated - pairs.generated)[real].abs().max() > 1e-2


def test_steps_and_eta_are_the_pipelines(pairs) -> None:
    torch.manual_seed(0)
    still = pipeline_of(eta=0.0)
    made = make_pairs(still, CLIPS, **SMALL)
    assert made.settings["eta"] == 0.0
    assert made.digest != pairs.digest


def test_policies_that_do_not_fit_are_refused(pipeline) -> None:
    of_diffusers = EgoMotionPipeline(
        pipeline.denoiser, DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing"), 3, 16, 4
    )
    with pytest.raises(ValueError, match="DDIMScheduler; its rollouts need an EgoMotionSDEScheduler"):
        make_pairs(of_diffusers, CLIPS, **SMALL)
    torch.manual_seed(0)
    other = pipeline_of()
    other.skeleton = replace(other.skeleton, name="another")
    with pytest.raises(ValueError, match="of the body 'another', the recordings' of 'mannequin-x-symmetric'"):
        make_pairs(other, CLIPS, **SMALL)


# ---- accuracy


def test_accuracy_counts_recordings_that_score_higher(pairs) -> None:
    recorded = pairs.recorded

    def oracle(wrong: int) -> Critic:
        """Knows the recordings, but takes the first ``wrong`` of them for made up."""

        def rule(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
            known = torch.tensor([any(torch.equal(x, y) for y in recorded[wrong:]) for x in joints])
            return torch.where(known, 0.9, 0.3)

        return Critic(rule)

    perfect = accuracy(oracle(0), pairs)
    assert (perfect.percent, perfect.lo, perfect.hi, perfect.wrong, perfect.total) == (100.0, 100.0, 100.0, 0, 4)
    assert (perfect.mean_recorded, perfect.mean_generated) == pytest.approx((0.9, 0.3))
    one = accuracy(oracle(1), pairs)  # a tie now, for both score 0.3
    assert (one.percent, one.wrong) == (75.0, 1)
    assert one.mean_recorded == pytest.approx(0.75)
    # Clips are drawn whole: nothing but the first of three, which is half right, or nothing but the others.
    assert (one.lo, one.hi) == (50.0, 100.0)
    assert accuracy(Critic(constant), pairs).wrong == 4


def test_models_are_asked_in_batches_about_their_own_rows(pairs) -> None:
    mask, sizes = pairs.windows.truth.mask, []

    def rule(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(joints))
        return torch.sigmoid(joints[:, 0, 0, 4] + 3 * head[:, 0, 5] + mask.sum(1))

    expected = torch.sigmoid(pairs.recorded[:, 0, 0, 4] + 3 * pairs.head[:, 0, 5] + mask.sum(1))
    assert_close(score_windows(Critic(rule), pairs.recorded, pairs.head, mask, batch_size=3), expected)
    assert sizes == [3, 1]


# ---- artefacts


def test_a_critic_of_the_floor_falls_with_penetration_and_no_drift() -> None:
    curves = severity_curves(Critic(lowest_joint), CLIPS, **SMALL)
    assert list(curves) == list(ARTEFACTS)
    sinking = curves["floor_penetration"]
    assert (sinking.spearman, sinking.lo, sinking.hi) == pytest.approx((-1.0, -1.0, -1.0))
    assert -1.0 < sinking.pooled_spearman < -0.8  # windows differ in height before anything is done
    assert sinking.severities == list(ARTEFACTS["floor_penetration"].severities)
    assert (sinking.unit, sinking.windows) == ("m", 4)
    windows = cut_windows(CLIPS, **SMALL)
    heights = windows.truth.joints[:, :, 1:, 2].masked_fill(~windows.truth.mask[..., None], 9.0).amin((1, 2))
    expected = [float(torch.sigmoid(heights - severity).mean()) for severity in sinking.severities]
    assert sinking.mean_scores == pytest.approx(expected, abs=1e-5)
    drifting = curves["foot_sliding"]
    assert drifting.spearman == 0.0
    assert np.ptp(drifting.mean_scores) < 1e-6


def test_equal_scores_count_zero_and_rising_ones_plus_one() -> None:
    rising = severity_curves(Critic(lambda j, h, m: 1 - lowest_joint(j, h, m)), CLIPS, **SMALL)
    assert rising["floor_penetration"].spearman == pytest.approx(1.0)
    tied = severity_curves(Critic(constant), CLIPS, **SMALL)
    assert {(curve.spearman, curve.pooled_spearman) for curve in tied.values()} == {(0.0, 0.0)}


def test_limbs_and_heads_come_from_other_clips_and_all_is_seeded() -> None:
    seen = []

    def remember(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
        seen.append((joints.clone(), head.clone()))
        return lowest_joint(joints, head, mask)

    clips = [CLIPS[0], CLIPS[0].__class__("twin", "tiny", CLIPS[1].motion)]
    first = severity_curves(Critic(remember), clips, **SMALL)
    recorded = seen[0][0]
    # Names of the windows: clip0/0, clip0/16, twin/0. The two of clip0 can only take from the twin.
    assert len(seen) == 1 + 6 * len(ARTEFACTS)
    whole = {name: seen[6 * (number + 1)] for number, name in enumerate(ARTEFACTS)}
    knees = whole["other_limbs"][0][:, :, [3, 4], :4]
    twin = recorded[2, :, [3, 4], :4]
    assert_close(knees[:2, :14].abs(), twin[:14].expand(2, -1, -1, -1).abs(), rtol=0.0, atol=1e-4)
    assert_close(whole["other_head"][1][:2, :14, 6], seen[0][1][2, :14, 6].expand(2, -1), rtol=0.0, atol=1e-5)
    assert severity_curves(Critic(lowest_joint), clips, **SMALL) == first
    assert severity_curves(Critic(lowest_joint), clips, seed=1, **SMALL)["jitter"] != first["jitter"]


def test_a_share_of_the_windows_is_spread_over_the_clips() -> None:
    curves = severity_curves(Critic(lowest_joint), CLIPS, **SMALL, max_windows=2)
    assert curves["jitter"].windows == 2
    with pytest.raises(ValueError, match="All windows are of the clip clip0"):
        severity_curves(Critic(lowest_joint), CLIPS[:1], **SMALL)


# ---- what has to be noticed


def test_a_critic_of_the_floor_notices_what_leaves_it() -> None:
    sees = noticed(Critic(lambda j, h, m: 1 - lowest_joint(j, h, m)), CLIPS, **SMALL)
    assert list(sees) == ["lifted_5cm", "shorter_10cm"]
    for of in sees.values():
        assert (of.percent, of.lo, of.hi, of.wrong, of.total) == (100.0, 100.0, 100.0, 0, 4)
    # It is taken for better by one that has only learned that sinking is bad, and for as good by the blind.
    assert {of.percent for of in noticed(Critic(lowest_joint), CLIPS, **SMALL).values()} == {0.0}
    assert {of.wrong for of in noticed(Critic(constant), CLIPS, **SMALL).values()} == {4}


def test_what_has_to_be_noticed_is_as_far_off_as_its_name_says() -> None:
    seen = []

    def remember(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
        seen.append((joints, head, mask))
        return constant(joints, head, mask)

    noticed(Critic(remember), CLIPS, **SMALL)
    (own, own_head, mask), (lifted, lifted_head, _), (shorter, head, _) = seen
    assert_close((lifted - own)[mask][..., 6], torch.full((int(mask.sum()), 21), 0.05), rtol=0.0, atol=1e-5)
    assert_close((lifted_head - own_head)[mask][:, 6], torch.full((int(mask.sum()),), 0.05), rtol=0.0, atol=1e-5)
    assert torch.equal(head, own_head)
    assert 0.06 < float((shorter - own)[mask][:, [6, 7], 6].mean()) < 0.12  # ankles


# ---- cost


def test_cost_is_what_the_clock_says(pipeline, monkeypatch) -> None:
    batches = []

    def rule(joints: Tensor, head: Tensor, mask: Tensor) -> Tensor:
        batches.append((joints, head))
        return constant(joints, head, mask)

    cost = scoring_cost(Critic(rule), pipeline, CLIPS, 16, num_windows=5, repeats=2)
    assert cost.ratio == pytest.approx(cost.scoring_ms / cost.rollout_ms)
    assert 0 < cost.scoring_ms < cost.rollout_ms
    assert (cost.windows, cost.frames, cost.repeats, cost.num_inference_steps) == (5, 16, 2, 3)
    assert len(batches) == 3  # one to warm up
    # Three whole windows there are; they repeat. Each measurement judges motions that were just drawn.
    assert_close(batches[0][1][3:], batches[0][1][:2])
    assert not torch.allclose(batches[1][0], batches[2][0])
    head = HeadPoses(*(part[:1] for part in cut_windows(CLIPS, **SMALL).truth.head))
    assert_close(perceptual_inputs(
        torch.eye(3).expand(1, 16, 21, 3, 3), torch.zeros(1, 16, 22, 3), head.R_world_cpf, head.p_world_cpf
    )[1], batches[0][1][:1])  # fmt: skip
