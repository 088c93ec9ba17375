"""Head poses as they arrive, a body after a stated lag."""

from motion_grpo.streaming.body_pose import BodyPose, motion_of
from motion_grpo.streaming.stream import EgoMotionStream, StreamConfig

__all__ = ["BodyPose", "EgoMotionStream", "StreamConfig", "motion_of"]
