"""From what was seen of the hands to what guidance holds a motion against."""

import warnings

import torch

from motion_grpo.guidance import so3
from motion_grpo.guidance.config import GuidanceConfig
from motion_grpo.guidance.residuals import SeenHands
from motion_grpo.trajectory import HandObservations, HeadTrajectory

# HaMeR's key points are OpenPose's: wrist, thumb, index, middle, ring, little finger, four each with the tip.
_KEYPOINTS = (0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3)


def seen_hands(
    config: GuidanceConfig, hands: list[HandObservations], recording: HeadTrajectory, head_trajectory: HeadTrajectory
) -> SeenHands | None:
    """What the mode needs of the observations, in each frame, over a floor at z = 0; None where nothing was seen.

    Args:
        config: its mode and ``min_confidence``.
        hands: observations of one recording.
        recording: the head as it was recorded.
        head_trajectory: the same at the frames of the motion.

    Raises:
        ValueError: the mode needs observations that are not there, or they do not fit the recording.
    """
    if not config.uses_hands:
        return None
    with_details = [one for one in hands if one.details is not None]
    if config.uses_hamer and not with_details:
        raise ValueError(
            f"The guidance mode {config.mode} needs HaMeR's detections: give hands= the npz that `motion-grpo data "
            "hamer` writes (a tuple of it and of Aria's wrists for aria_hamer), or choose no_hands or aria_wrist_only."
        )
    wrists = with_details if config.wrists_from_hamer else [one for one in hands if one.details is None] or hands
    if not wrists:
        raise ValueError(
            f"The guidance mode {config.mode} needs to know where the wrists were: give hands=, or no_hands."
        )
    if config.mode == "aria_hamer" and wrists[0].details is not None:
        raise ValueError(
            "The guidance mode aria_hamer needs Aria's wrists beside HaMeR's: give hands= a tuple of both."
        )

    def at_frames(one: HandObservations) -> HandObservations:
        return one.timed_by(recording).along(head_trajectory)

    seen, details = at_frames(wrists[0]), None
    if config.uses_hamer:
        details = seen if config.wrists_from_hamer else at_frames(with_details[0])
    confidence = torch.where(seen.confidence > config.min_confidence, seen.confidence, 0.0)
    if not bool(confidence.any()) and (details is None or not bool(details.visible.any())):
        warnings.warn(
            f"No wrist of {seen.source} is seen with a confidence above {config.min_confidence:g} in this recording: "
            "guidance goes on as no_hands.",
            stacklevel=2,
        )
        return None
    floor = torch.tensor([0.0, 0.0, head_trajectory.floor_height])
    known = SeenHands(confidence, seen.R_world_wrist, seen.p_world_wrist - floor)
    if details is None:
        return known
    extra = details.details
    assert extra is not None  # these observations are those that have details
    points = extra.keypoints[:, :, list(_KEYPOINTS)]
    visible = details.visible.float()
    return known._replace(
        fingers=so3.components_first(extra.finger_rotmats.flatten(1, 2)),
        fingers_seen=visible.repeat_interleave(15, dim=-1),
        image=torch.where(visible[..., None, None] > 0, points[..., :2] / points[..., 2:], 0.0),
        image_seen=visible * (points[..., 2] > 0).all(-1),
        R_cpf_camera=extra.T_cpf_camera[:3, :3],
        p_cpf_camera=extra.T_cpf_camera[:3, 3],
    )
