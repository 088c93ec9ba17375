"""Hands that HaMeR (Pavlakos et al., CVPR 2024) found in the images of the glasses' camera."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from motion_grpo.files import NPZ_ERRORS
from motion_grpo.trajectory.checks import Origin, pose_matrix, split_poses
from motion_grpo.trajectory.conventions import SIDES
from motion_grpo.trajectory.hand_observations import HandDetails, HandObservations
from motion_grpo.trajectory.head_trajectory import HeadTrajectory

HAMER_SHAPES = {"keypoints_3d": (21, 3), "mano_hand_pose": (15, 3, 3), "mano_hand_global_orient": (3, 3)}
"""Of each side, ``left_keypoints_3d`` and so on: one row a detection, whose ``left_timestamps_ns`` says when."""
_SAME_PLACE, _SAME_TIME = 0.1, 0.5
"""Meters and seconds, within which a left and a right hand are one hand of which nobody knows the side (EgoAllo)."""


def read_hamer(path: str | os.PathLike[str], trajectory: HeadTrajectory) -> HandObservations:
    """Reads HaMeR's detections from an npz with the fields of EgoAllo's ``hamer_outputs.pkl``.

    For each side, ``left_`` and ``right_``: ``timestamps_ns`` (N,) on the clock of the head trajectory, and
    ``keypoints_3d`` (N, 21, 3), ``mano_hand_pose`` (N, 15, 3, 3), ``mano_hand_global_orient`` (N, 3, 3) in the camera;
    then ``T_cpf_cam`` (7,) wxyz + xyz and ``focal_length`` in pixels. ``motion-grpo data hamer`` writes it.

    Of several hands of a side at a time the first is kept; hands that lie within 0.1 m of one of the other side, at
    most half a second away, are dropped, for one of the two is wrong.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle, fields that are missing or misshapen, values that are not finite, or a camera without
            intrinsics; and as :meth:`HandObservations.from_cpf`.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".pickle"):
        raise ValueError(
            f"{path} is a pickle, which is never loaded here; convert it once: motion-grpo data hamer {path.name} "
            "--from-pickle -o hamer.npz"
        )
    fields = _read(path)
    if "focal_length" not in fields:
        raise ValueError(f"{path} has no focal_length: without the camera's intrinsics nobody knows how far hands are.")
    focal_length = float(fields["focal_length"])
    if not 0 < focal_length < float("inf"):
        raise ValueError(f"focal_length of {path} is {focal_length}; give the camera's, in pixels.")
    T_cpf_camera = pose_matrix(*(x[0] for x in split_poses(fields["T_cpf_cam"][None], Origin(f"T_cpf_cam of {path}"))))
    times = {side: torch.from_numpy(fields[f"{side}_timestamps_ns"].astype(np.float64)) / 1e9 for side in SIDES}
    wrists = {side: torch.from_numpy(fields[f"{side}_keypoints_3d"])[:, 0].double() for side in SIDES}
    kept = {}
    for side, other in (SIDES, SIDES[::-1]):
        doubtful = _beside(times[side], wrists[side], times[other], wrists[other])
        _, first = np.unique(np.where(doubtful, np.nan, times[side]), return_index=True)
        kept[side] = torch.tensor([row for row in first if not doubtful[row]], dtype=torch.int64)
    moments = torch.cat([times[side][kept[side]] for side in SIDES]).unique()
    if len(moments) == 0:
        raise ValueError(f"{path} holds no hand of which it is clear whether it is the left or the right one.")
    frames = len(moments)
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 2, 1, 1)
    visible = torch.zeros(frames, 2, dtype=torch.bool)
    fingers, points = torch.eye(3).repeat(frames, 2, 15, 1, 1), torch.zeros(frames, 2, 21, 3)
    for number, side in enumerate(SIDES):
        of_side = {name: torch.from_numpy(fields[f"{side}_{name}"])[kept[side]] for name in HAMER_SHAPES}
        rows = torch.searchsorted(moments, times[side][kept[side]])
        visible[rows, number] = True
        poses[rows, number, :3, :3] = of_side["mano_hand_global_orient"].double()
        poses[rows, number, :3, 3] = of_side["keypoints_3d"][:, 0].double()
        fingers[rows, number], points[rows, number] = of_side["mano_hand_pose"].float(), of_side["keypoints_3d"].float()
    # MANO's wrist frame is that of SMPL-H's wrist joint: the one's hands were made part of the other.
    seen = HandObservations.from_cpf(
        T_cpf_camera @ poses, trajectory, visible=visible, timestamps=moments, source=str(path)
    )
    return replace(seen, details=HandDetails(fingers, points, T_cpf_camera.float(), focal_length))


def _read(path: Path) -> dict[str, np.ndarray]:
    shapes = {"T_cpf_cam": (7,)}
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except NPZ_ERRORS as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error
    for side in SIDES:
        rows = len(np.atleast_1d(fields.get(f"{side}_timestamps_ns", ())))
        shapes |= {f"{side}_timestamps_ns": (rows,)}
        shapes |= {f"{side}_{name}": (rows, *shape) for name, shape in HAMER_SHAPES.items()}
    for name, shape in shapes.items():
        if name not in fields:
            raise ValueError(f"{path} has no {name}; HaMeR's detections need {', '.join(shapes)} and focal_length.")
        if fields[name].shape != shape:
            raise ValueError(f"{name} of {path} has the shape {fields[name].shape}; it needs {shape}.")
        if not np.isfinite(fields[name]).all():
            raise ValueError(f"{name} of {path} holds a NaN or an infinity; leave out detections that failed.")
    return fields


def _beside(
    times: Float64[Tensor, " rows"],
    places: Float64[Tensor, "rows 3"],
    other_times: Float64[Tensor, " others"],
    other_places: Float64[Tensor, "others 3"],
) -> Bool[Tensor, " rows"]:
    """Which hands are where one of the other side is at about the same time."""
    beside = torch.zeros(len(times), dtype=torch.bool)
    if len(times) == 0 or len(other_times) == 0:
        return beside
    order = other_times.argsort()
    other_times, other_places = other_times[order], other_places[order]
    first, last = (torch.searchsorted(other_times, times + shift) for shift in (-_SAME_TIME, _SAME_TIME))
    for row, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        beside[row] = bool(((other_places[start:stop] - places[row]).norm(dim=-1) <= _SAME_PLACE).any())
    return beside
