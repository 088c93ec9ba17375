"""What tests of the scheduler share."""

import torch

from motion_grpo.schedulers import (
    EgoMotionSDEScheduler,
)

SHAPE = (4, 6, 5)


def scheduler_with(steps: int | list[int] = 10, **config) -> EgoMotionSDEScheduler:
    scheduler = EgoMotionSDEScheduler(**config)
    scheduler.set_timesteps(**({"timesteps": steps} if isinstance(steps, list) else {"num_inference_steps": steps}))
    return scheduler


def states(count: int = 2, shape: tuple[int, ...] = SHAPE) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


OURS = EgoMotionSDEScheduler(timestep_spacing="trailing").config
