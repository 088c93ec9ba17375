"""Diffusion schedulers: how a noisy motion state takes one step towards the denoiser's prediction."""

from motion_grpo.schedulers.ego_motion_sde import (
    EgoMotionSDEScheduler,
    EgoMotionSDESchedulerOutput,
    noise_level,
    refuse_incompatible,
)

__all__ = ["EgoMotionSDEScheduler", "EgoMotionSDESchedulerOutput", "noise_level", "refuse_incompatible"]
