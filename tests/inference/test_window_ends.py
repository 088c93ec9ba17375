"""The shipped checkpoint over recordings of more than 10 s: motion is as smooth where a window ends as elsewhere."""

from pathlib import Path

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import read_mocap_pack
from motion_grpo.evaluation import head_trajectory
from motion_grpo.inference.stitching import egoallo_window_starts, window_starts
from motion_grpo.trajectory import HeadTrajectory, load_trajectory
from tests.conftest import shared_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WINDOW, OVERLAP = 128, 48
SAMPLES = 4


@pytest.fixture(scope="module")
def pipe() -> EgoMotionPipeline:
    pipe = EgoMotionPipeline.from_pretrained("base")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def jerk(pipe: EgoMotionPipeline, trajectory: HeadTrajectory, **config) -> Float[Tensor, " steps"]:
    """Mean size of the third difference of the joints over some samples."""
    pipe.register_to_config(**{"stitching": "crossfade", "overlap": OVERLAP} | config)
    generators = [torch.Generator().manual_seed(seed) for seed in range(SAMPLES)]
    motions = pipe(trajectory, num_samples=SAMPLES, generator=generators).motions
    return torch.stack([m.joints[:, :22].diff(n=3, dim=0).norm(dim=-1).mean(dim=1) for m in motions]).mean(dim=0)


def window_ends(frames: int, starts: list[int]) -> Bool[Tensor, " steps"]:
    """The third differences that span the last frame of a window and the one after it."""
    ends = torch.zeros(frames - 3, dtype=torch.bool)
    for start in starts:
        ends[start + WINDOW - 3 : start + WINDOW] = True
    return ends


@pytest.mark.parametrize(
    ("stitching", "starts_of", "overlap"),
    [("crossfade", window_starts, OVERLAP), ("egoallo", egoallo_window_starts, 32)],
)
def test_of_the_examples_against_the_same_frames_while_windows_end_elsewhere(pipe, stitching, starts_of, overlap):
    """The same moments of recordings that begin later, so that their windows end at other moments."""
    at_ends, otherwise = [], []
    for name in ("walk_turns", "look_around"):
        trajectory = load_trajectory(EXAMPLES / f"{name}.csv", floor_height=0.0).resample(30.0)
        frames = len(trajectory)
        assert frames > 300
        ends = window_ends(frames, starts_of(frames, WINDOW, overlap))
        at_ends.append(jerk(pipe, trajectory, stitching=stitching, overlap=overlap)[ends].mean())
        for later in (32, 48, 64):
            elsewhere = ends[later:] & ~window_ends(frames - later, window_starts(frames - later, WINDOW, OVERLAP))
            otherwise.append(jerk(pipe, trajectory[later:])[elsewhere].mean() / 3)
    ratio = float(sum(at_ends) / sum(otherwise))
    assert ratio < 1.1 if stitching == "crossfade" else ratio > 1.5


def test_of_the_test_splits(pipe):
    at_ends, elsewhere = [], []
    for split in ("test", "id_test"):
        for clip in read_mocap_pack(shared_path("mocap"), split):
            frames = len(clip.motion)
            if frames > 300:
                ends = window_ends(frames, window_starts(frames, WINDOW, OVERLAP))
                values = jerk(pipe, head_trajectory(clip))
                at_ends.append(values[ends].mean())
                elsewhere.append(values[~ends].mean())
    assert len(at_ends) > 8
    assert float(sum(at_ends) / sum(elsewhere)) < 1.1
