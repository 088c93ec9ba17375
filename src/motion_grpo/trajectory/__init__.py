"""Head trajectories (the central pupil frame over time), wrists that were seen, readers, and the floor."""

from motion_grpo.trajectory.conventions import CONVENTIONS, Convention
from motion_grpo.trajectory.floor import floor_from_head, floor_from_points
from motion_grpo.trajectory.hand_observations import HandDetails, HandObservations
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.readers.aria import default_T_device_cpf, read_aria, vrs_T_device_cpf
from motion_grpo.trajectory.readers.hamer import read_hamer
from motion_grpo.trajectory.readers.hands import load_hands, read_aria_hands, read_hands_csv
from motion_grpo.trajectory.readers.load import load_segments, load_trajectory, read_npz, read_text
from motion_grpo.trajectory.readers.points import read_points

__all__ = [
    "CONVENTIONS", "Convention", "HandDetails", "HandObservations", "HeadTrajectory", "default_T_device_cpf",
    "floor_from_head", "floor_from_points", "load_hands", "load_segments", "load_trajectory", "read_aria",
    "read_aria_hands", "read_hamer", "read_hands_csv", "read_npz", "read_points", "read_text", "vrs_T_device_cpf",
]  # fmt: skip
