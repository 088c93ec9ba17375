"""Metrics of recovered motion (MotionGRPO, Appendix E), one function each: tensors in, one number a sequence out.

Positions are world positions in meters, z up, floor at z = 0, joints in SMPL-H order with the root first; tables use
the root and the 21 body joints (``[..., :22, :]``), no fingers. Batch axes lead and broadcast, so many samples can be
held against one truth. ``joints`` picks the joints that count; None means all that are given.

``mask`` says which frames count. What lies in the others, even NaN, changes nothing: a velocity counts when both its
frames count, a jerk when its four frames do. Means over nothing (no frame counts, or too few for a derivative) are NaN,
sums over nothing are 0.

Velocity and jitter depend on the frame rate: compare them at equal ``fps`` only.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import FOOT_JOINTS, HEAD, NUM_BODY_AND_ROOT, NUM_BODY_JOINTS, NUM_JOINTS
from motion_grpo.geometry.rotations import geodesic_angle, project_to_rotation

METRIC_UNITS: dict[str, str] = {
    "mpjpe": "mm",
    "pa_mpjpe": "mm",
    "pa_mpjpe_egoallo": "mm",
    "mpjve": "mm/s",
    "mpjre": "deg",
    "jitter": "100 m/s^3",
    "ground_penetration": "m",
    "foot_skating": "m",
    "foot_skating_egoallo": "m",
    "ground_contact_egoallo": "share of sequences",
    "head_error": "mm",
    "diversity": "units of the representation",
}
"""Unit of every metric of this module; those in meters are sums over a sequence."""

JOINT_GROUPS: dict[str, tuple[int, ...]] = {
    "all": tuple(range(NUM_BODY_AND_ROOT)),
    "trunk": (0, 3, 6, 9, 12, 13, 14, 15),
    "arms": (16, 17, 18, 19, 20, 21),
    "legs": (1, 2, 4, 5),
    "feet": FOOT_JOINTS,
}
"""Joints of the body by how well a head tells of them: trunk with collars and head, shoulders to wrists, hips and
knees, ankles and toes."""

CONTACT_HEIGHT = 0.02
"""A foot joint below this height (meters) touches the ground: the paper's example, Appendix E."""
EGOALLO_CONTACT_HEIGHTS = (0.08, 0.08, 0.04, 0.04)
"""The same in EgoAllo's metrics, for the ankles and toes of FOOT_JOINTS, meters."""

_MM = 1000.0


def mpjpe(
    pred: Float[Tensor, "*#batch frames joints 3"],
    true: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean distance of predicted from true joints in the world, mm (Eq. 17)."""
    pred, true = _positions(pred, mask, joints), _positions(true, mask, joints)
    return _MM * _mean(_distance(pred, true).mean(dim=-1), mask)


def pa_mpjpe(
    pred: Float[Tensor, "*#batch frames joints 3"],
    true: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean joint distance in mm after every frame's prediction was moved onto the truth (Appendix E; Umeyama 1991).

    The alignment is `align_similarity` over the joints that count. This is the field's definition; published EgoAllo
    numbers are `pa_mpjpe_egoallo`.
    """
    pred, true = _positions(pred, mask, joints), _positions(true, mask, joints)
    return _MM * _mean(_distance(align_similarity(pred, true), true).mean(dim=-1), mask)


def pa_mpjpe_egoallo(
    pred: Float[Tensor, "*#batch frames joints 3"],
    true: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """What EgoAllo's code reports as PA-MPJPE, mm: for comparison with its tables only.

    It moves the *truth* onto the prediction and takes the distance from there to the truth where it was, so it measures
    the aligning motion and not what is left after it: a perfect pose 10 cm off scores 100 mm, where `pa_mpjpe` is 0.
    """
    pred, true = _positions(pred, mask, joints), _positions(true, mask, joints)
    return _MM * _mean(_distance(align_similarity(true, pred), true).mean(dim=-1), mask)


def mpjve(
    pred: Float[Tensor, "*#batch frames joints 3"],
    true: Float[Tensor, "*#batch frames joints 3"],
    fps: float,
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean distance of predicted from true joint velocities, mm/s (Eq. 18), from differences of successive frames."""
    pred, true = _positions(pred, mask, joints), _positions(true, mask, joints)
    pred, true = pred.diff(dim=-3) * fps, true.diff(dim=-3) * fps
    return _MM * _mean(_distance(pred, true).mean(dim=-1), _runs(mask, 1))


def mpjre(
    pred: Float[Tensor, "*#batch frames joints 3 3"],
    true: Float[Tensor, "*#batch frames joints 3 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean geodesic angle between predicted and true local joint rotations, degrees (Appendix E, text at Eq. 19).

    Eq. 19 itself is an L1 norm of unnamed rotation parameters; the text says geodesic, and so does this. AvatarPoser
    and AGRoL print the mean absolute axis-angle component, a smaller number. The usual set is the 21 body joints,
    without the root, whose rotation is not a local one.
    """
    if joints is not None:
        pred, true = pred[..., list(joints), :, :], true[..., list(joints), :, :]
    if mask is not None:
        pred, true = (torch.where(mask[..., None, None, None], R, 0.0) for R in (pred, true))
    return _mean(torch.rad2deg(geodesic_angle(pred, true)).mean(dim=-1), mask)


def jitter(
    positions: Float[Tensor, "*#batch frames joints 3"],
    fps: float,
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean magnitude of the joints' third derivative, in 100 m/s^3 (Appendix E), from third differences of frames."""
    jerk = _positions(positions, mask, joints).diff(n=3, dim=-3) * fps**3
    return _mean(torch.linalg.vector_norm(jerk, dim=-1).mean(dim=-1), _runs(mask, 3)) / 100.0


def ground_penetration(
    positions: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
    per_frame: bool = False,
) -> Float[Tensor, "*batch"]:
    """Depth of the joints below the floor, summed over joints and frames, meters per sequence (Eq. 20).

    The sum grows with the sequence; ``per_frame`` divides it by the number of frames that count (meters per frame).
    """
    depth = (-_positions(positions, mask, joints)[..., 2]).clamp_min(0.0).sum(dim=-1)
    return _mean(depth, mask) if per_frame else _sum(depth, mask)


def foot_skating(
    positions: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] = FOOT_JOINTS,
    height: float = CONTACT_HEIGHT,
    per_frame: bool = False,
) -> Float[Tensor, "*batch"]:
    """Horizontal path of the feet while they touch the ground, summed over feet, meters per sequence.

    Appendix E gives the horizontal velocity of foot joints lower than 2 cm, and its tables give meters. Here that is
    the length (Euclidean) of the horizontal step from one frame to the next, counted when the joint is below ``height``
    in both, so that a landing foot does not skate. Where the joints lie in the foot matters: on the default body,
    standing, the toe joints are 1.0 cm above the floor and the ankles 6.8 cm, so at 2 cm ankles count only in a body
    that has sunk.

    The sum grows with the sequence; ``per_frame`` divides it by the number of steps that count (meters per frame).
    """
    feet = _positions(positions, mask, joints)
    low = feet[..., 2] < height
    step = torch.linalg.vector_norm(feet[..., :2].diff(dim=-3), dim=-1)
    skate = torch.where(low[..., 1:, :] & low[..., :-1, :], step, 0.0).sum(dim=-1)
    return _mean(skate, _runs(mask, 1)) if per_frame else _sum(skate, _runs(mask, 1))


def foot_skating_egoallo(
    positions: Float[Tensor, "*batch samples frames joints 3"],
    mask: Bool[Tensor, "... frames"] | None = None,
) -> Float[Tensor, "*batch samples"]:
    """Foot skating as EgoAllo's code has it (after EgoEgo and kinpoly), meters per sequence.

    Sum over ankles and toes of (|dx| + |dy|)(2 - 2^(h/H)) from the frame before, where the later frame's height h is
    below H = `EGOALLO_CONTACT_HEIGHTS`. Heights are taken above the lowest body joint (root and fingers excluded) in
    any frame of any sample: the ``samples`` of one recording share one floor, so they change each other's values.
    """
    positions = _positions(positions, mask, None)
    height = positions[..., 2]
    counted = height if mask is None else torch.where(mask[..., None], height, torch.inf)
    floor = counted[..., 1:NUM_BODY_AND_ROOT].amin(dim=(-3, -2, -1), keepdim=True)
    ratio = (height - floor)[..., 1:, FOOT_JOINTS] / height.new_tensor(EGOALLO_CONTACT_HEIGHTS)
    step = positions[..., FOOT_JOINTS, :2].diff(dim=-3).abs().sum(dim=-1)
    return _sum(torch.where(ratio < 1, step * (2 - 2**ratio), 0.0).sum(dim=-1), _runs(mask, 1))


def ground_contact_egoallo(
    positions: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
) -> Float[Tensor, "*batch"]:
    """1 where any ankle or toe is below `EGOALLO_CONTACT_HEIGHTS` at any frame, else 0; its mean is EgoAllo's share."""
    height = positions[..., FOOT_JOINTS, 2]
    touches = (height < height.new_tensor(EGOALLO_CONTACT_HEIGHTS)).any(dim=-1)
    return (touches if mask is None else touches & mask).any(dim=-1).to(positions.dtype)


def head_error(
    pred: Float[Tensor, "*#batch frames joints 3"],
    true: Float[Tensor, "*#batch frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean distance of the predicted from the true head joint, mm (head translation error in EgoAllo, in meters)."""
    return mpjpe(pred, true, mask, joints=(HEAD,))


def diversity(
    motions: Float[Tensor, "*batch group frames features"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean Euclidean distance between two flattened motions of a group (Eq. 22), in the representation's units.

    The distance is over whole motions, so it grows with their length. NaN for a group of one.
    """
    if mask is not None:
        motions = torch.where(mask[..., None, :, None], motions, 0.0)
    flat = motions.flatten(start_dim=-2)
    # The matrix-multiplication form loses the small distances of a group that hardly differs.
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    group = motions.shape[-3]
    return distances.sum(dim=(-2, -1)) / (group * (group - 1))


def spread(
    samples: Float[Tensor, "*batch samples frames joints 3"],
    mask: Bool[Tensor, "*#batch frames"] | None = None,
    joints: Sequence[int] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean distance of the samples of one recording from their mean, over samples, frames and joints, mm.

    To be held against their error: what a head does not tell of has to differ from sample to sample. 0 for one sample.
    """
    mask = None if mask is None else mask[..., None, :]
    samples = _positions(samples, mask, joints)
    return _MM * _mean(_distance(samples, samples.mean(dim=-4, keepdim=True)).mean(dim=-1), mask).mean(dim=-1)


def motion_metrics(
    pred_rotmats: Float[Tensor, "*#batch frames rotations 3 3"],
    pred_joints: Float[Tensor, "*#batch frames joints 3"],
    true_rotmats: Float[Tensor, "*#batch frames rotations 3 3"],
    true_joints: Float[Tensor, "*#batch frames joints 3"],
    fps: float,
    mask: Bool[Tensor, "*#batch frames"] | None = None,
) -> dict[str, Float[Tensor, "*batch"]]:
    """Every metric of a single recovered motion, by name, one value a sequence; units in `METRIC_UNITS`.

    Args:
        pred_rotmats: predicted local rotations: the 21 body joints, or 22 or 52 joints root first. MPJRE is always over
            the 21 body joints.
        pred_joints: predicted joints in the world, 22 or 52 of them root first, meters, floor at z = 0. Position
            metrics are always over the first 22.
        true_rotmats: true local rotations.
        true_joints: true joints in the same world.
        fps: frames per second.
        mask: frames that count.

    For EgoAllo's foot skating every sequence is a sample set of its own, so that no value depends on its batch.

    Raises:
        ValueError: another number of rotations or joints.
    """
    if pred_joints.shape[-2] not in (NUM_BODY_AND_ROOT, NUM_JOINTS):
        raise ValueError(f"motion_metrics needs 22 or 52 joints, root first; pred_joints has {pred_joints.shape[-2]}.")
    if pred_rotmats.shape[-3] not in (NUM_BODY_JOINTS, NUM_BODY_AND_ROOT, NUM_JOINTS):
        raise ValueError(
            "motion_metrics needs the local rotations of the 21 body joints, or of 22 or 52 joints root first; "
            f"pred_rotmats has {pred_rotmats.shape[-3]}."
        )
    pred, true = pred_joints[..., :NUM_BODY_AND_ROOT, :], true_joints[..., :NUM_BODY_AND_ROOT, :]
    first = 0 if pred_rotmats.shape[-3] == NUM_BODY_JOINTS else 1
    body = range(first, first + NUM_BODY_JOINTS)
    there, back = _pa_errors(_positions(pred, mask, None), _positions(true, mask, None), mask)
    single = pred.unsqueeze(-4), None if mask is None else mask.unsqueeze(-2)
    return {
        "mpjpe": mpjpe(pred, true, mask),
        "pa_mpjpe": there,
        "pa_mpjpe_egoallo": back,
        "mpjve": mpjve(pred, true, fps, mask),
        "mpjre": mpjre(pred_rotmats, true_rotmats, mask, body),
        "jitter": jitter(pred, fps, mask),
        "ground_penetration": ground_penetration(pred, mask),
        "foot_skating": foot_skating(pred, mask),
        "foot_skating_egoallo": foot_skating_egoallo(*single).squeeze(-1),
        "ground_contact_egoallo": ground_contact_egoallo(pred, mask),
        "head_error": head_error(pred, true, mask),
    }


def align_similarity(
    source: Float[Tensor, "*#batch points 3"], target: Float[Tensor, "*#batch points 3"]
) -> Float[Tensor, "*batch points 3"]:
    """The source after the rotation, scale and translation that bring it closest to the target (Umeyama 1991).

    Least squares over the points, one alignment for every batch entry; never a reflection. A source whose points
    coincide (to rounding) ends at the target's mean; values and gradients stay finite there. The rotation is roma's
    special Procrustes: Horn's closed form in float64 where the device has it, so no batch of SVDs on a GPU.
    """
    return _aligned(source, target, *_rotation(source, target))


def _rotation(
    source: Float[Tensor, "*#batch points 3"], target: Float[Tensor, "*#batch points 3"]
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch"]]:
    """The rotation that turns the source onto the target, and how well the two overlap then.

    The way back, from the target to the source, turns by the transpose and has the same overlap.
    """
    source, target = (points - points.mean(dim=-2, keepdim=True) for points in (source, target))
    # Sums, not matrix products, which autocast and TF32 would round to a millimetre.
    covariance = torch.stack([(target[..., i, None] * source).sum(dim=-2) for i in range(3)], dim=-2)
    R = project_to_rotation(covariance)
    return R, (R * covariance).sum(dim=(-2, -1))


def _aligned(source: Tensor, target: Tensor, R: Tensor, overlap: Tensor) -> Tensor:
    """The source after a rotation and the scale and translation that go with it."""
    rounding = 8 * torch.finfo(source.dtype).eps * source.abs().amax(dim=(-2, -1))
    source, target_mean = source - source.mean(dim=-2, keepdim=True), target.mean(dim=-2, keepdim=True)
    spread = source.square().sum(dim=(-2, -1))
    # Where the points coincide, both are rounding errors: any divisor but a rounding error leaves a scale of zero.
    scale = overlap / torch.where(spread > source.shape[-2] * rounding**2, spread, 1.0)
    R = scale[..., None, None] * R
    return sum(source[..., i, None] * R[..., None, :, i] for i in range(3)) + target_mean


def _pa_errors(pred: Tensor, true: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """`pa_mpjpe` and `pa_mpjpe_egoallo`, by one rotation."""
    R, overlap = _rotation(pred, true)
    there, back = _aligned(pred, true, R, overlap), _aligned(true, pred, R.mT, overlap)
    first, second = (_MM * _mean(_distance(moved, true).mean(dim=-1), mask) for moved in (there, back))
    return first, second


def _positions(positions: Tensor, mask: Tensor | None, joints: Sequence[int] | None) -> Tensor:
    """The joints that count, zero in frames that do not, so that whatever lies there cannot spread."""
    if joints is not None:
        positions = positions[..., list(joints), :]
    return positions if mask is None else torch.where(mask[..., None, None], positions, 0.0)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1)


def _runs(mask: Tensor | None, order: int) -> Tensor | None:
    """Where a difference of that order counts: all of its ``order + 1`` successive frames do."""
    if mask is None:
        return None
    for _ in range(order):
        mask = mask[..., 1:] & mask[..., :-1]
    return mask


def _sum(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over the last axis, frames, where the mask is true."""
    return (values if mask is None else torch.where(mask, values, 0.0)).sum(dim=-1)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the last axis, frames, where the mask is true; NaN where it nowhere is."""
    return values.mean(dim=-1) if mask is None else _sum(values, mask) / mask.sum(dim=-1)
