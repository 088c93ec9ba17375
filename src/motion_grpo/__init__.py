"""Full-body human motion (SMPL-H) from the trajectory of a head-mounted device.

from motion_grpo import EgoMotionPipeline
motion = EgoMotionPipeline.from_pretrained()("closed_loop_trajectory.csv").motion
motion.save("walk.npz")
"""

from motion_grpo.body import Skeleton
from motion_grpo.inference import EgoMotionPipeline, EgoMotionPipelineOutput
from motion_grpo.models import EgoMotionDenoiser, MotionPerceptualModel
from motion_grpo.motion import Motion
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.trajectory import HeadTrajectory, load_segments, load_trajectory

__version__ = "0.1.0"

__all__ = [
    "EgoMotionDenoiser", "EgoMotionPipeline", "EgoMotionPipelineOutput", "EgoMotionSDEScheduler", "HeadTrajectory",
    "Motion", "MotionPerceptualModel", "Skeleton", "load_segments", "load_trajectory",
]  # fmt: skip
