"""From a recording at its own frame rate to a training clip: EgoAllo's preprocessing, which is HuMoR's (Rempe et al. 2021).

The middle of the clip is kept, its floor found under the feet that stand still, contacts labelled at the source's frame
rate, and the result resampled to 30 fps by timestamp. What differs from the reference, on purpose: speeds are in m/s
instead of metres per source frame, DBSCAN's outliers are no cluster, and frames are interpolated and not picked.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from motion_grpo.body import forward_kinematics
from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.data.clips import CONTACT_HEIGHT, CONTACT_SPEED, resample
from motion_grpo.data.importing import ClipError
from motion_grpo.motion import Motion

FLOOR_CLUSTER_EPS = 0.005
"""Metres: static toes closer than this in height stand on the same ground."""
FLOOR_CLUSTER_MIN_SAMPLES = 3
TOE_IN_FOOT = 0.01
"""Metres from the sole to the toe joint, which lies inside the foot."""


def prepare(motion: Motion, *, keep: float = 0.8, min_seconds: float = 1.0, fps: float = 30.0) -> Motion:
    """Trims, puts the floor at z = 0, labels contacts and resamples.

    Args:
        motion: at the source's frame rate, z up; its contacts are ignored. Its ``floor_height`` is taken where no toe ever
            stands still.
        keep: share of the frames that stays, from the middle: AMASS's clips begin and end with the actor standing.
        min_seconds: what is left has to be this long.
        fps: of the result.

    Raises:
        ClipError: too short; numbers that are not finite (names the frame).
    """
    motion = middle(motion, keep)
    if len(motion) < 2 or len(motion) < min_seconds * motion.fps:
        seconds = len(motion) / motion.fps if len(motion) > 1 else 0.0
        raise ClipError(f"shorter than {min_seconds:g} s: {seconds:.2f} s left of the middle {keep:.0%}")
    _check_finite(motion)
    joints = forward_kinematics(
        motion.body.rest_joints(motion.betas)[:22],
        torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], dim=1),
        motion.root_positions,
    ).joints
    floor = floor_from_toes(joints[:, [LEFT_FOOT, RIGHT_FOOT], 2], speeds(joints[:, [LEFT_FOOT, RIGHT_FOOT]], motion.fps))
    if floor is None:
        floor = motion.floor_height
    contacts = contacts_above(joints, motion.fps, floor)
    drop = torch.tensor([0.0, 0.0, floor])
    prepared = resample(replace(motion, root_positions=motion.root_positions - drop, floor_height=0.0), fps)
    source_frame = (prepared.timestamps * motion.fps).round().long().clamp(max=len(motion) - 1)
    return replace(prepared, contacts=contacts[source_frame])


def middle(motion: Motion, keep: float) -> Motion:
    """The middle ``keep`` of the frames (first tenth and last tenth away at 0.8), as the reference cuts it."""
    edge = (1 - keep) / 2
    # Rounding first: 0.1 * 30 is not quite 3, and which frame is first must not hang on that.
    start, end = (int(round(share * len(motion), 6)) for share in (edge, 1 - edge))
    cut = slice(start, end)
    return replace(
        motion,
        root_rotmats=motion.root_rotmats[cut],
        root_positions=motion.root_positions[cut],
        body_rotmats=motion.body_rotmats[cut],
        hand_rotmats=None if motion.hand_rotmats is None else motion.hand_rotmats[cut],
        contacts=motion.contacts[cut],
        timestamps=motion.timestamps[cut],
    )


def speeds(points: Float[Tensor, "frames points 3"], fps: float) -> Float[Tensor, "frames points"]:
    """m/s from each frame to the next; the last frame has the speed of the one before it."""
    step = (points[1:] - points[:-1]).norm(dim=-1) * fps
    return torch.cat([step, step[-1:]])


def floor_from_toes(
    heights: Float[Tensor, "frames toes"], toe_speeds: Float[Tensor, "frames toes"]
) -> float | None:
    """Height of the floor, metres: 1 cm under the lowest height at which toes stand still.

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
    return float(min(clusters)) - TOE_IN_FOOT


def contacts_above(
    joints: Float[Tensor, "frames joints 3"], fps: float, floor: float
) -> Float[Tensor, "frames 21"]:
    """1 where a body joint is slower than 0.6 m/s and low: toes 4 cm, knees, ankles and wrists 8 cm over standing toes.

    As in the reference, heights count from the toe joint that stands, 1 cm above ``floor``.

    Args:
        joints: world positions, metres, root first.
        fps: of the source: a still foot that is sampled rarely is no slower.
        floor: its z, metres.
    """
    index = list(CONTACT_HEIGHT)
    limits = torch.tensor(list(CONTACT_HEIGHT.values()))
    low = joints[:, index, 2] - (floor + TOE_IN_FOOT) < limits
    contacts = torch.zeros(len(joints), 21)
    contacts[:, [joint - 1 for joint in index]] = (low & (speeds(joints[:, index], fps) < CONTACT_SPEED)).float()
    return contacts


def dbscan_1d(values: Float[np.ndarray, "points"], eps: float, min_samples: int) -> Int[np.ndarray, "points"]:
    """DBSCAN (Ester et al. 1996) of numbers on a line, by sorting: the labels scikit-learn gives, -1 for outliers.

    A core point has ``min_samples`` points, itself included, within ``eps`` (inclusive). Core points no more than ``eps``
    apart are one cluster; a border point belongs to the cluster of a core point in reach, the first found if there are
    two; clusters are numbered by their first core point in the input.
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
    # Every point looks at the core points left and right of it (itself, if it is one), and takes the cluster found first.
    right = np.searchsorted(core, np.arange(len(x)))
    sides = np.stack([np.searchsorted(core, np.arange(len(x)), side="right") - 1, right])
    exists = (sides >= 0) & (sides < len(core))
    sides = sides.clip(0, len(core) - 1)
    in_reach = exists & (np.abs(x[core[sides]] - x) <= eps)
    best = np.where(in_reach, core_labels[sides], len(starts)).min(axis=0)
    labels[order] = np.where(best < len(starts), best, -1)
    return labels


def _check_finite(motion: Motion) -> None:
    parts = [motion.root_rotmats, motion.root_positions, motion.body_rotmats]
    if motion.hand_rotmats is not None:
        parts.append(motion.hand_rotmats)
    finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parts]).all(dim=0)
    if not finite.all():
        raise ClipError(f"{int((~finite).sum())} frames hold numbers that are not finite, the first is {int(finite.int().argmin())}")
    if not motion.betas.isfinite().all():
        raise ClipError("betas hold numbers that are not finite")
