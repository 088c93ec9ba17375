"""From a recording at its own frame rate to a training clip: EgoAllo's preprocessing, after HuMoR (Rempe et al. 2021).

The middle of the clip is kept, its floor found under the feet that stand still, contacts labeled at the source's frame
rate, and the result resampled to 30 fps by timestamp. What differs from the reference, on purpose: speeds are in m/s
instead of meters per source frame, DBSCAN's outliers are no cluster, and frames are interpolated and not picked.
"""

from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, PARENTS, Skeleton
from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.data.clips import ClipError
from motion_grpo.motion import Motion
from motion_grpo.motion.contacts import CONTACT_SPEED, TOE_HEIGHT, label_contacts, speeds

FLOOR_CLUSTER_EPS = 0.005
"""Meters: static toes closer than this in height stand on the same ground."""
FLOOR_CLUSTER_MIN_SAMPLES = 3


@dataclass(frozen=True, eq=False)
class Recording:
    """A motion at its source's frame rate, as mocap files hold it: axis-angle rotations, nothing labeled yet."""

    rotvecs: Float[np.ndarray, "frames joints 3"]
    """Radians, relative to the parent, root first: 22 joints, or 52 with hands."""
    root_positions: Float[np.ndarray, "frames 3"]
    """Pelvis joint in a z-up world, meters."""
    betas: Float[Tensor, "16"]
    fps: float
    skeleton: Skeleton | None = None
    """The body that ``betas`` refer to; None for the default one."""
    floor_height: float = 0.0
    """Meters; counts only where the feet do not tell."""

    def __len__(self) -> int:
        return len(self.rotvecs)

    def middle(self, keep: float) -> "Recording":
        """The middle ``keep`` of the frames (at 0.8, less the first and the last tenth), as the reference cuts it."""
        edge = (1 - keep) / 2
        # Rounding first: 0.1 * 30 is not quite 3, and which frame is first must not hang on that.
        start, end = (int(round(share * len(self), 6)) for share in (edge, 1 - edge))
        return replace(self, rotvecs=self.rotvecs[start:end], root_positions=self.root_positions[start:end])


def prepare(recording: Recording, *, keep: float = 0.8, min_seconds: float = 1.0, fps: float = 30.0) -> Motion:
    """Trims, puts the floor at z = 0, labels contacts and resamples.

    Args:
        keep: share of the frames that stays, from the middle: AMASS's clips begin and end with the actor standing.
        min_seconds: what is left has to be this long.
        fps: of the result.

    Raises:
        ClipError: too short.
        ValueError: numbers that are not finite (names the frame).
    """
    _check_finite(recording)
    recording = recording.middle(keep)
    if len(recording) < max(2.0, min_seconds * recording.fps):
        seconds = len(recording) / recording.fps
        raise ClipError(f"shorter than {min_seconds:g} s: {seconds:.2f} s are left of the middle {keep:.0%}")
    joints = torch.from_numpy(joint_positions(recording))
    toes = joints[:, [LEFT_FOOT, RIGHT_FOOT]]
    floor = floor_from_toes(toes[..., 2], speeds(toes, recording.fps))
    if floor is None:
        floor = recording.floor_height
    return _resample(recording, label_contacts(joints, recording.fps, floor), floor, fps)


def joint_positions(recording: Recording) -> Float[np.ndarray, "frames 22 3"]:
    """World positions of root and body joints, meters: forward kinematics with the frames last.

    Every step is then a handful of products of long contiguous rows, which makes it ten times as fast as small matrices
    are; the import of AMASS spends its time here.
    """
    rest = (recording.skeleton or Skeleton.default()).rest_joints(recording.betas).numpy()
    locals_ = _rotation_matrices(
        np.ascontiguousarray(recording.rotvecs[:, :NUM_BODY_AND_ROOT].transpose(1, 2, 0), np.float32)
    )
    R_world = {0: locals_[0]}
    positions = np.empty((NUM_BODY_AND_ROOT, 3, len(recording)), np.float32)
    positions[0] = recording.root_positions.T
    for joint in range(1, NUM_BODY_AND_ROOT):
        parent = PARENTS[joint]
        R = R_world[parent]
        x, y, z = rest[joint] - rest[parent]
        positions[joint] = positions[parent] + (R[:, 0] * x + R[:, 1] * y + R[:, 2] * z)
        if joint in PARENTS[:NUM_BODY_AND_ROOT]:
            L = locals_[joint]
            R_world[joint] = R[:, 0, None] * L[0] + R[:, 1, None] * L[1] + R[:, 2, None] * L[2]
    return positions.transpose(2, 0, 1)


def _rotation_matrices(rotvecs: Float[np.ndarray, "joints 3 frames"]) -> Float[np.ndarray, "joints 3 3 frames"]:
    """Rodrigues' formula."""
    x, y, z = rotvecs.swapaxes(0, 1)
    angle = np.sqrt(x * x + y * y + z * z)
    nonzero = np.maximum(angle, 1e-8)
    s = np.sin(nonzero) / nonzero
    c = 2 * (np.sin(nonzero / 2) / nonzero) ** 2
    cx, cy, cz = c * x, c * y, c * z
    sx, sy, sz = s * x, s * y, s * z
    R = np.empty((len(rotvecs), 3, 3, rotvecs.shape[-1]), np.float32)
    R[:, 0, 0], R[:, 0, 1], R[:, 0, 2] = 1 - cy * y - cz * z, cx * y - sz, cx * z + sy
    R[:, 1, 0], R[:, 1, 1], R[:, 1, 2] = cx * y + sz, 1 - cx * x - cz * z, cy * z - sx
    R[:, 2, 0], R[:, 2, 1], R[:, 2, 2] = cx * z - sy, cy * z + sx, 1 - cx * x - cy * y
    return R


def _resample(recording: Recording, contacts: Float[Tensor, "frames 21"], floor: float, fps: float) -> Motion:
    """By timestamp: slerp, lerp, and the contacts of the nearest frame."""
    last = len(recording) - 1
    timestamps = np.arange(int(last / recording.fps * fps + 1e-6) + 1) / fps
    place = np.minimum(timestamps * recording.fps, last)
    left = np.minimum(place.astype(int), last - 1)
    weight = torch.tensor(place - left, dtype=torch.float32)

    def quat(frames):
        return roma.rotvec_to_unitquat(torch.from_numpy(recording.rotvecs[frames]).float())

    start = quat(left)
    turn = roma.unitquat_to_rotvec(roma.quat_product(roma.quat_conjugation(start), quat(left + 1)))
    rotmats = roma.unitquat_to_rotmat(roma.quat_product(start, roma.rotvec_to_unitquat(weight[:, None, None] * turn)))
    positions = torch.from_numpy(recording.root_positions).float() - torch.tensor([0.0, 0.0, floor])
    return Motion(
        root_rotmats=rotmats[:, 0],
        root_positions=torch.lerp(positions[left], positions[left + 1], weight[:, None]),
        body_rotmats=rotmats[:, 1:NUM_BODY_AND_ROOT],
        betas=recording.betas,
        contacts=contacts[place.round().astype(int)],
        timestamps=torch.from_numpy(timestamps),
        hand_rotmats=rotmats[:, 22:] if rotmats.shape[1] > 22 else None,
        skeleton=recording.skeleton,
    )


def floor_from_toes(heights: Float[Tensor, "frames toes"], toe_speeds: Float[Tensor, "frames toes"]) -> float | None:
    """Height of the floor, meters: 1 cm under the lowest height at which toes stand still.

    Heights of toes slower than 0.6 m/s are clustered; the cluster with the lowest median is the floor, higher ones are
    steps and chairs. Outliers count only where there is no cluster at all.

    Returns:
        None where no toe ever stands still.
    """
    static = heights.T[toe_speeds.T < CONTACT_SPEED].double().numpy()
    if len(static) == 0:
        return None
    labels = dbscan_1d(static, FLOOR_CLUSTER_EPS, FLOOR_CLUSTER_MIN_SAMPLES)
    clusters = [np.median(static[labels == label]) for label in range(labels.max() + 1)] or [np.median(static)]
    return float(min(clusters)) - TOE_HEIGHT


def dbscan_1d(values: Float[np.ndarray, " points"], eps: float, min_samples: int) -> Int[np.ndarray, " points"]:
    """DBSCAN (Ester et al. 1996) of numbers on a line, by sorting: the labels scikit-learn gives, -1 for outliers.

    A core point has ``min_samples`` points, itself included, within ``eps`` (inclusive). Core points no more than
    ``eps`` apart are one cluster; a border point belongs to the cluster of a core point in reach, the first found if
    there are two; clusters are numbered by their first core point in the input.
    """
    order = np.argsort(values, kind="stable")
    x = values[order]
    reach = np.searchsorted(x, x + eps, side="right") - np.searchsorted(x, x - eps, side="left")
    core = np.flatnonzero(reach >= min_samples)
    labels = np.full(len(x), -1)
    if len(core) == 0:
        return labels
    starts = np.flatnonzero(np.diff(x[core], prepend=-np.inf) > eps)
    first_found = np.minimum.reduceat(order[core], starts)
    rank = np.argsort(np.argsort(first_found))
    core_labels = np.repeat(rank, np.diff(starts, append=len(core)))
    # Every point looks at the core points left and right of it (itself, if it is one): the cluster found first has it.
    right = np.searchsorted(core, np.arange(len(x)))
    sides = np.stack([np.searchsorted(core, np.arange(len(x)), side="right") - 1, right])
    exists = (sides >= 0) & (sides < len(core))
    sides = sides.clip(0, len(core) - 1)
    in_reach = exists & (np.abs(x[core[sides]] - x) <= eps)
    best = np.where(in_reach, core_labels[sides], len(starts)).min(axis=0)
    labels[order] = np.where(best < len(starts), best, -1)
    return labels


def _check_finite(recording: Recording) -> None:
    finite = np.isfinite(recording.rotvecs).all(axis=(1, 2)) & np.isfinite(recording.root_positions).all(axis=1)
    if not finite.all():
        first = int(finite.argmin())
        raise ValueError(f"{int((~finite).sum())} frames hold numbers that are not finite, frame {first} the first.")
    if not recording.betas.isfinite().all():
        raise ValueError("betas hold numbers that are not finite.")
