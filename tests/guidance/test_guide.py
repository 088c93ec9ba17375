"""Guidance through the pipeline, as a user has it."""

import warnings

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from motion_grpo import EgoMotionPipeline, GuidanceConfig, HandObservations
from motion_grpo.guidance import Terrain
from motion_grpo.trajectory import load_hands
from tests.tiny import head_trajectory, tiny_pipeline
from tests.trajectory.readers.test_hamer import FRAMES, hand_fields, write


def call(pipe: EgoMotionPipeline, guidance: object, frames: int = FRAMES, **options):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(head_trajectory(frames, floor_height=0.2), guidance=guidance, generator=generator, **options)


def wrists(frames: int = FRAMES, confidence: float = 1.0) -> HandObservations:
    """A hand before each shoulder, palms down."""
    head = head_trajectory(frames, floor_height=0.2)
    T = torch.eye(4).repeat(frames, 2, 1, 1)
    T[..., :3, 3] = torch.tensor([[0.2, -0.4, 0.3], [-0.2, -0.4, 0.3]])
    trust = torch.full((frames, 2), confidence)
    return HandObservations.from_cpf(T, head, visible=torch.ones(frames, 2), confidence=trust)


def wrist_error(output, hands: HandObservations) -> float:
    return float((output.motion.joints[:, [20, 21]] - hands.p_world_wrist).norm(dim=-1).mean())


def test_lowers_the_cost_and_leaves_the_head_where_it_is() -> None:
    pipe = tiny_pipeline()
    plain, guided = call(pipe, None), call(pipe, "no_hands", num_samples=2)
    report = guided.guidance
    assert plain.guidance is None
    assert (sum(report.after.values()) < sum(report.before.values())).all()
    assert report.before["prior_rotation"].tolist() == [0, 0]
    assert "skating" in str(report)
    assert not torch.equal(plain.motion.body_rotmats, guided.motion.body_rotmats)
    torch.testing.assert_close(plain.motion.joints[:, 15], guided.motion.joints[:, 15], rtol=0, atol=1e-4)
    eye = torch.eye(3).expand(FRAMES, 21, 3, 3)
    R = guided.motion.body_rotmats
    torch.testing.assert_close(R @ R.mT, eye, rtol=0, atol=1e-5)
    # Latents are the guided ones too.
    assert torch.equal(call(pipe, "no_hands", num_samples=2, output_type="latent").latents, guided.latents)


def test_a_sample_is_the_same_however_many_are_drawn() -> None:
    pipe = tiny_pipeline()
    for config in (GuidanceConfig(), GuidanceConfig(inner=True)):
        alone, among = (call(pipe, config, frames=8, num_samples=count).motion for count in (1, 3))
        torch.testing.assert_close(alone.joints, among.joints, rtol=0, atol=2e-3)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_inner_with_diffusers_schedulers_over_several_windows(scheduler: type) -> None:
    pipe = tiny_pipeline(window=16)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    inner = call(pipe, GuidanceConfig(inner=True, post=False), frames=40)
    assert inner.guidance is None
    assert inner.motion.joints.isfinite().all()
    assert not torch.equal(inner.motion.body_rotmats, call(pipe, None, frames=40).motion.body_rotmats)


def test_a_list_of_recordings() -> None:
    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    output = pipe([head_trajectory(8), head_trajectory(6)], guidance="no_hands")
    assert [len(motion) for motion in output.motions] == [8, 6]
    assert len(output.guidance) == 2


@pytest.mark.parametrize("include_hands", [False, True])
def test_wrists_end_where_they_were_seen(include_hands: bool) -> None:
    pipe, seen = tiny_pipeline(include_hands=include_hands), wrists()
    far = wrist_error(call(pipe, None), seen)
    config = GuidanceConfig("aria_wrist_only", inner=True)
    assert wrist_error(call(pipe, config, hands=seen), seen) < min(0.03, 0.2 * far)


@pytest.mark.parametrize("mode", ["aria_hamer", "hamer_wrist", "hamer_reproj2"])
@pytest.mark.parametrize("include_hands", [False, True])
def test_fingers_are_hamers(tmp_path, mode: str, include_hands: bool) -> None:
    head = head_trajectory(FRAMES, floor_height=0.2)
    hamer = load_hands(write(tmp_path, hand_fields(head)), head)
    pipe = tiny_pipeline(include_hands=include_hands)
    hands = (wrists(), hamer) if mode == "aria_hamer" else hamer
    # A network with hands has them fitted between the steps: nothing is left to do after those.
    output = call(pipe, GuidanceConfig(mode, inner=not include_hands, post_iterations=8), hands=hands)
    assert output.motion.hand_rotmats.shape == (FRAMES, 30, 3, 3)
    terms = output.guidance.after
    assert terms["finger_rotation"] < 0.1 * output.guidance.before["finger_rotation"]
    assert ("reprojection" in terms) == (mode == "hamer_reproj2")


def test_hands_that_were_never_seen_with_confidence() -> None:
    pipe = tiny_pipeline()
    with pytest.warns(UserWarning, match="guidance goes on as no_hands"):
        output = call(pipe, "aria_wrist_only", hands=wrists(confidence=0.5))
    assert "wrist_position" not in output.guidance.after
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(pipe, "aria_wrist_only", hands=wrists(confidence=0.9))


@pytest.mark.parametrize("mode", ["aria_wrist_only", "aria_hamer", "hamer_wrist"])
def test_a_mode_without_its_hands(mode: str) -> None:
    with pytest.raises(ValueError, match=f"The guidance mode {mode} needs"):
        call(tiny_pipeline(), mode)
    if mode != "aria_wrist_only":
        with pytest.raises(ValueError, match="needs HaMeR's detections"):
            call(tiny_pipeline(), mode, hands=wrists())


def test_penetration_lifts_out_of_the_ground() -> None:
    pipe = tiny_pipeline()
    # Feet of this untrained body are anywhere: half of them are below the ground.
    heights = call(pipe, None).motion.joints[:, [7, 8, 10, 11], 2]
    ground = Terrain(torch.full((2, 2), float(heights.median())), (-50.0, -50.0), 100.0)
    plain = call(pipe, "no_hands", terrain=ground)
    lifted = call(pipe, GuidanceConfig(penetration=100.0), terrain=ground)

    def depth(output) -> float:
        return float((ground.heights[0, 0] - output.motion.joints[:, [7, 8, 10, 11], 2]).clamp_min(0).mean())

    assert depth(lifted) < 0.5 * depth(plain)
