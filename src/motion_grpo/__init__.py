"""Full-body human motion (SMPL-H) from the trajectory of a head-mounted device.

from motion_grpo import EgoMotionPipeline
motion = EgoMotionPipeline.from_pretrained()("closed_loop_trajectory.csv").motion
motion.save("walk.npz")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motion_grpo.body import Skeleton
    from motion_grpo.guidance import GuidanceConfig
    from motion_grpo.inference import EgoMotionPipeline, EgoMotionPipelineOutput
    from motion_grpo.models import EgoMotionDenoiser, MotionPerceptualModel
    from motion_grpo.motion import Motion
    from motion_grpo.schedulers import EgoMotionSDEScheduler
    from motion_grpo.streaming import EgoMotionStream
    from motion_grpo.trajectory import HandObservations, HeadTrajectory, load_segments, load_trajectory

__version__ = "0.2.0"

__all__ = [
    "EgoMotionDenoiser", "EgoMotionPipeline", "EgoMotionPipelineOutput", "EgoMotionSDEScheduler", "EgoMotionStream",
    "GuidanceConfig", "HandObservations", "HeadTrajectory", "Motion", "MotionPerceptualModel", "Skeleton",
    "load_segments", "load_trajectory",
]  # fmt: skip

_HOMES = {
    "EgoMotionDenoiser": "models",
    "EgoMotionPipeline": "inference",
    "EgoMotionPipelineOutput": "inference",
    "EgoMotionSDEScheduler": "schedulers",
    "EgoMotionStream": "streaming",
    "GuidanceConfig": "guidance",
    "HandObservations": "trajectory",
    "HeadTrajectory": "trajectory",
    "Motion": "motion",
    "MotionPerceptualModel": "models",
    "Skeleton": "body",
    "load_segments": "trajectory",
    "load_trajectory": "trajectory",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: PyTorch and diffusers take seconds, which no help text has to wait for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
