"""What is denoised (:class:`MotionState` in its packed :class:`StateLayout`) and what a user gets (:class:`Motion`)."""

from motion_grpo.motion.contacts import label_contacts, with_contacts
from motion_grpo.motion.formats import check_output_path
from motion_grpo.motion.motion import Motion
from motion_grpo.motion.state import FPS, MotionState, RotationRepresentation, StateLayout

__all__ = [
    "FPS", "Motion", "MotionState", "RotationRepresentation", "StateLayout", "check_output_path", "label_contacts",
    "with_contacts",
]  # fmt: skip
