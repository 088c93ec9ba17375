"""What tests of the pipeline share."""

import torch

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from tests.tiny import tiny_denoiser


def pipeline(scheduler=None, steps: int = 3, window: int = 128, overlap: int = 32, **network) -> EgoMotionPipeline:
    torch.manual_seed(0)
    scheduler = scheduler or EgoMotionSDEScheduler()
    network = {"rotation_representation": "6d"} | network
    pipe = EgoMotionPipeline(tiny_denoiser(**network), scheduler, steps, window, overlap)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
