"""Project Aria: where the glasses saw the hands, as its Machine Perception Services (MPS) write it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.timing import nearest
from motion_grpo.trajectory.conventions import SIDES
from motion_grpo.trajectory.readers.tables import column_names, read_header, read_table

_HAND_FILES = ("hand_tracking_results.csv", "wrist_and_palm_poses.csv")
# Folders of MPS output that hold one service's files, or all of them.
_MPS_FOLDERS = ("slam", "trajectory", "mps")
_WRIST_LANDMARK, _PALM_LANDMARK = 5, 20


@dataclass(frozen=True, eq=False)
class HandTracking:
    """Wrists and palms as the glasses tracked them; left, then right; NaN where a hand was not tracked."""

    timestamps: Float64[Tensor, " observations"]
    """Seconds, on the clock of the head trajectory."""
    confidence: Float32[Tensor, "observations 2"]
    """In [0, 1]; 0 where not tracked."""
    wrists: Float32[Tensor, "observations 2 3"]
    """Meters, in ``frame``."""
    palms: Float32[Tensor, "observations 2 3"]
    wrist_normals: Float32[Tensor, "observations 2 3"]
    """Unit vectors out of the palm's side, in ``frame``; NaN in ``wrist_and_palm_poses.csv`` of the first version."""
    palm_normals: Float32[Tensor, "observations 2 3"]
    """Likewise; NaN in all files of the first version."""
    frame: str = "device"

    def in_cpf(self, T_device_cpf: Float64[Tensor, "4 4"]) -> "HandTracking":
        """The same hands as seen from the central pupil frame (x left, y up, z forward)."""
        R_device_cpf, p_device_cpf = T_device_cpf[:3, :3].float(), T_device_cpf[:3, 3].float()
        return replace(
            self,
            wrists=(self.wrists - p_device_cpf) @ R_device_cpf,
            palms=(self.palms - p_device_cpf) @ R_device_cpf,
            wrist_normals=self.wrist_normals @ R_device_cpf,
            palm_normals=self.palm_normals @ R_device_cpf,
            frame="cpf",
        )

    def wrist_poses(self) -> Float32[Tensor, "observations 2 4 4"]:
        """T_frame_wrist of SMPL-H's wrist joints; NaN where a hand was not tracked, or its normal is not known.

        The axes: y = -wrist normal, x = the direction from wrist to palm (from palm to wrist on the right), made
        perpendicular to y. On MPS's own hand the four knuckles then lie 2 degrees from where SMPL-H's rest pose has
        them; EgoAllo's frame, whose x is the direction to the palm itself, is 16 degrees off.
        """
        y = -self.wrist_normals / self.wrist_normals.norm(dim=-1, keepdim=True)
        x = (self.palms - self.wrists) * torch.tensor([[1.0], [-1.0]])
        x = x - (x * y).sum(-1, keepdim=True) * y
        x = x / x.norm(dim=-1, keepdim=True)
        poses = torch.eye(4).repeat(len(self.wrists), 2, 1, 1)
        poses[..., :3, :] = torch.stack([x, y, torch.linalg.cross(x, y), self.wrists], dim=-1)
        return poses

    def at(self, timestamps: Float64[Tensor, " frames"]) -> Float32[Tensor, "frames 2 13"]:
        """Each frame's nearest observation, at most half a frame away; confidence 0 and NaN where there is none.

        Hands are tracked at 10 Hz or so: two of three frames at 30 fps have no observation, rather than a made-up one.
        """
        rows = nearest(self.timestamps, timestamps)
        half_frame = float(timestamps.diff().median()) / 2
        near = (self.timestamps[rows] - timestamps).abs() <= half_frame + 1e-6
        parts = [self.confidence[..., None], self.wrists, self.palms, self.wrist_normals, self.palm_normals]
        observations = torch.cat(parts, dim=-1)[rows]
        observations[~near] = torch.nan
        observations[..., 0] = observations[..., 0].nan_to_num(0.0)
        return observations


def read_hand_tracking(path: str | os.PathLike[str]) -> HandTracking:
    """Reads MPS ``wrist_and_palm_poses.csv`` or ``hand_tracking_results.csv``, of either version, in the device frame.

    Columns are found by name. As in Meta's reader a hand is tracked where its confidence is above 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, damaged rows (the line is named), times that do not increase.
    """
    path = Path(path)
    names = column_names(read_header(path))
    if "tx_left_landmark_0_device" in names:
        parts = [f"{{side}}_landmark_{i}_device" for i in (_WRIST_LANDMARK, _PALM_LANDMARK)]
    else:
        parts = ["{side}_wrist_device", "{side}_palm_device"]
    columns = ["tracking_timestamp_us", *(f"{side}_tracking_confidence" for side in SIDES)]
    triples = [[f"t{axis}_{part}" for axis in "xyz"] for part in parts]
    has_normals, has_frames = "nx_left_palm_device" in names, "qw_left_device_wrist" in names
    quaternions = {side: [f"q{axis}_{side}_device_wrist" for axis in "wxyz"] for side in SIDES}
    if has_normals:
        triples += [[f"n{axis}_{{side}}_{part}_device" for axis in "xyz"] for part in ("wrist", "palm")]
    triples = {side: [[name.format(side=side) for name in triple] for triple in triples] for side in SIDES}
    columns += [name for side in SIDES for triple in triples[side] for name in triple]
    if has_frames and not has_normals:
        columns += [name for side in SIDES for name in quaternions[side]]
    table = read_table(path, dict.fromkeys(columns, pa.float64()), "MPS hand tracking")

    def column(name):
        return torch.from_numpy(table[name].to_numpy().copy())

    timestamps = column("tracking_timestamp_us") / 1e6
    late = (~(timestamps.diff() > 0)).nonzero().flatten().tolist()
    if late or not bool(timestamps.isfinite().all()):
        raise ValueError(
            f"Line {late[0] + 3 if late else 2} of {path}: the time does not increase; sort the file by time."
        )
    confidence = torch.stack([column(f"{side}_tracking_confidence") for side in SIDES], dim=1).float()
    tracked = confidence > 0

    def stack(names):
        return torch.stack([torch.stack([column(n) for n in names[s]], dim=1) for s in SIDES], dim=1).float()

    values = [stack({side: triples[side][i] for side in SIDES}) for i in range(len(triples["left"]))]
    if has_frames and not has_normals:
        # The y axis of MPS's own wrist frame is minus the normal that the second version writes.
        values.append(-wxyz_to_matrix(stack(quaternions))[..., 1])
    values = [torch.where(tracked[..., None], value, torch.nan) for value in values]
    values += [torch.full_like(values[0], torch.nan)] * (4 - len(values))
    return HandTracking(timestamps, torch.where(tracked, confidence, 0.0), *values)


def find_hand_tracking(folder: Path) -> Path | None:
    """The hand tracking that belongs to the trajectory in ``folder``; the fuller of two files."""
    root = recording_folder(folder / "trajectory.csv")
    places = dict.fromkeys([folder, folder / "hand_tracking", root / "hand_tracking", root / "mps" / "hand_tracking"])
    return next((place / name for name in _HAND_FILES for place in places if (place / name).is_file()), None)


def recording_folder(path: Path) -> Path:
    """The folder of the recording that a trajectory file belongs to."""
    folder = path.parent
    while folder.name in _MPS_FOLDERS:
        folder = folder.parent
    return folder
