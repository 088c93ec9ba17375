"""Windows of a motion, whose head they are judged with, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.body import cpf_of
from motion_grpo.inference.scoring import score_motion
from motion_grpo.models import MotionPerceptualModel, MotionPerceptualModelOutput, perceptual_inputs
from motion_grpo.trajectory import HeadTrajectory
from tests.tiny import head_trajectory, moving_motion


class Recorder(MotionPerceptualModel):
    """Keeps what it is asked, and answers how far along x the first pelvis-near joint starts."""

    def __init__(self) -> None:
        super().__init__(d_latent=4, num_blocks=0, num_heads=1)
        self.joints, self.head = [], []

    def forward(self, joints: Tensor, head: Tensor, mask: Tensor | None = None) -> MotionPerceptualModelOutput:
        assert mask is None
        self.joints.append(joints)
        self.head.append(head)
        return MotionPerceptualModelOutput(torch.sigmoid(joints[:, 0, 0, 4]))


def tiny_model() -> MotionPerceptualModel:
    return MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, frames_per_token=4).eval()


@pytest.mark.parametrize(
    ("frames", "spans"),
    [
        (9, [(0, 9)]),
        (10, [(0, 10)]),
        (11, [(0, 10), (1, 11)]),
        (15, [(0, 10), (5, 15)]),
        (28, [(0, 10), (5, 15), (10, 20), (15, 25), (18, 28)]),
    ],
)
def test_windows_overlap_by_half_and_reach_the_end(frames: int, spans: list) -> None:
    motion = moving_motion(frames)
    scored = score_motion(Recorder(), motion, window=10)
    assert [(part.start, part.stop) for part in scored.windows] == spans
    for part in scored.windows:
        assert part.start_time == pytest.approx(part.start / 30)
        assert part.stop_time == pytest.approx((part.stop - 1) / 30)
        assert part.score == pytest.approx(float(torch.sigmoid(motion.joints[part.start, 1, 0])))
    assert scored.score == pytest.approx(sum(part.score for part in scored.windows) / len(spans))
    lowest = scored.lowest(2)
    assert [part.score for part in lowest] == sorted(part.score for part in scored.windows)[:2]


def test_a_window_is_scored_as_the_model_scores_it() -> None:
    motion, model = moving_motion(20), tiny_model()
    scored = score_motion(model, motion, window=12)
    R, p = cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))
    joints, head = perceptual_inputs(motion.body_rotmats, motion.joints[:, :22], R, p)
    for part, start in zip(scored.windows, (0, 6, 8), strict=True):
        expected = model(joints[None, start : start + 12], head[None, start : start + 12]).score
        assert part.score == pytest.approx(float(expected.detach()), abs=1e-5)


def test_the_given_head_is_the_one_that_counts() -> None:
    motion, trajectory = moving_motion(20), head_trajectory(20)
    recorder = Recorder()
    score_motion(recorder, motion, trajectory)
    assert_close(recorder.head[0][0, :, 4:], trajectory.p_world_cpf)
    recorder = Recorder()
    score_motion(recorder, motion)
    _, p = cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))
    assert_close(recorder.head[0][0, :, 4:], p)


def test_heights_are_over_the_motions_floor() -> None:
    motion, trajectory = moving_motion(20), head_trajectory(20)
    up = torch.tensor([0.0, 0.0, 2.5])
    raised = replace(motion, root_positions=motion.root_positions + up, floor_height=2.5)
    # The trajectory's own floor is somebody's estimate.
    head = HeadTrajectory.from_rotations(
        trajectory.R_world_cpf, trajectory.p_world_cpf + up, fps=30.0, floor_height=2.3
    )
    plain, moved = Recorder(), Recorder()
    score_motion(plain, motion, trajectory)
    score_motion(moved, raised, head)
    assert_close(moved.joints[0], plain.joints[0], rtol=0.0, atol=1e-5)
    assert_close(moved.head[0], plain.head[0], rtol=0.0, atol=1e-5)


def test_bad_input_is_refused() -> None:
    motion, model = moving_motion(20), tiny_model()
    with pytest.raises(
        ValueError, match=r"20 frames at 30 fps, the head trajectory \(array\) 19 poses at 30.*Resample"
    ):
        score_motion(model, motion, head_trajectory(19))
    with pytest.raises(ValueError, match=r"20 poses at 60.*trajectory\.resample\(30\)"):
        score_motion(model, motion, head_trajectory(20, fps=60.0))
    with pytest.raises(ValueError, match=r"60 frames per second.*motion_grpo\.data\.resample\(motion, 30\)"):
        score_motion(model, moving_motion(20, fps=60.0))
    with pytest.raises(ValueError, match="window is 1"):
        score_motion(model, motion, window=1)
    positions = motion.root_positions.clone()
    positions[7] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite values, first in frame 7"):
        score_motion(model, replace(motion, root_positions=positions))
