"""From any motion capture skeleton to SMPL-H, by global rotations measured from a T-pose.

Every SMPL-H joint takes the world rotation of a joint of the source, ``R_smplh(t) = R_source(t) @ reference^T``, where
the reference is that joint's rotation while the source stands like SMPL-H at rest: upright, facing +z, arms out,
straight limbs along SMPL-H's own hip-ankle and shoulder-wrist lines. The root travels in proportion to leg length, and
two-bone inverse kinematics puts each ankle where the source has it at that scale, so planted feet stay planted. It is
the method by which the data set open_mocap_smplh was made, written anew.
"""

from dataclasses import replace

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import FOOT_JOINTS, NUM_BETAS, NUM_BODY_AND_ROOT, PARENTS, STATURES, Skeleton, forward_kinematics
from motion_grpo.geometry.rotations import rotation_between
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.motion import FPS, Motion
from motion_grpo.motion.contacts import TOE_HEIGHT, with_contacts
from motion_grpo.retargeting.rigs import CMU_UNIT, JOINTS, HalfTwist, Halfway, Rig

KNEE_ROLL = 9.0
"""Degrees: SMPL's knees point outward at rest (hinge axes of AMASS clips), other skeletons' straight ahead."""
FLOOR_PERCENTILE = 0.05

LEG_LENGTHS = (0.4, 1.2)
"""Meters from hip to ankle that somebody has: a child of 0.9 m, a man of 2.4 m. Adults' legs in inches that are taken
for centimeters are shorter."""
_UNITS = {"meters": 1.0, "feet": 0.3048, "CMU's": CMU_UNIT, "inches": 0.0254, "centimeters": 0.01, "millimeters": 0.001}

_LEGS = {side: tuple(JOINTS.index(f"{side}_{part}") for part in ("hip", "knee", "ankle")) for side in "LR"}
_ARMS = {side: tuple(JOINTS.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist")) for side in "LR"}
# From the y-up frame of the rest pose to the z-up world: who faced +z faces -y, as in AMASS.
_Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)


def retarget(
    source: SourceMotion,
    rig: Rig,
    *,
    stature: float | None = None,
    betas0: float | None = None,
    skeleton: Skeleton | None = None,
) -> Motion:
    """The motion on SMPL-H at 30 fps: z up, floor at z = 0, contacts labeled, hands flat.

    Args:
        rig: which joint of the source drives which of SMPL-H, and how the source stands in its T-pose.
        stature: of the body, meters. When None it is the rig's own, or estimated from legs, arms and trunk.
        betas0: the first shape parameter instead of a stature; the others are zero.
        skeleton: SMPL-H body; the default one when None.

    Raises:
        ValueError: joints that the source lacks (all are listed); legs of an impossible length (wrong unit); a zero
            pose that is no T-pose.
    """
    rig.check(source.names)
    skeleton = skeleton or Skeleton.default()
    source = source.at_fps(FPS)
    R_t_pose, p_t_pose = t_pose(source, rig)
    leg = sum(_limb_length(source.positions[0], source, rig, limb) for limb in _LEGS.values()) / 2
    _check_unit(leg, rig.metres_per_unit)
    if betas0 is None:
        betas0 = rig.betas0 if stature is None else _betas0(stature, skeleton)
    if betas0 is None:
        betas0 = _betas0(float(np.clip(_stature(source, rig, p_t_pose, skeleton), *STATURES)), skeleton)
    betas = torch.zeros(NUM_BETAS)
    betas[0] = betas0
    rest = skeleton.rest_joints(betas)[: len(JOINTS)].double()

    references = reference_rotations(source, rig, rest, R_t_pose, p_t_pose)
    R = torch.stack([_driver_rotation(source, rig, R_t_pose, joint) @ references[joint].mT for joint in JOINTS], dim=1)
    R = _Z_UP @ R
    scale = sum(_bone_lengths(rest[list(limb)]) for limb in _LEGS.values()) / 2 / leg
    hips_and_ankles = {
        i: scale * source.p(rig.bone(JOINTS[i])) @ _Z_UP.mT for limb in _LEGS.values() for i in limb[::2]
    }
    hip_centre = (hips_and_ankles[_LEGS["L"][0]] + hips_and_ankles[_LEGS["R"][0]]) / 2
    pelvis = hip_centre - R[:, 0] @ ((rest[_LEGS["L"][0]] + rest[_LEGS["R"][0]]) / 2 - rest[0])
    R = place_ankles(R, pelvis, rest, {side: hips_and_ankles[limb[2]] for side, limb in _LEGS.items()})

    local = torch.cat([R[:, :1], R[:, list(PARENTS[1:NUM_BODY_AND_ROOT])].mT @ R[:, 1:]], dim=1)
    pelvis[:, 2] -= floor_height(forward_kinematics(rest, local, pelvis).joints, rest, rig.floor, rig.floor_tolerance)
    motion = Motion(
        root_rotmats=local[:, 0].float(),
        root_positions=pelvis.float(),
        body_rotmats=local[:, 1:].float(),
        betas=betas,
        contacts=torch.zeros(len(source), 21),
        timestamps=torch.arange(len(source), dtype=torch.float64) / FPS,
        skeleton=None if skeleton is Skeleton.default() else skeleton,
    )
    return with_contacts(motion)


def _check_unit(leg: float, metres_per_unit: float) -> None:
    if LEG_LENGTHS[0] <= leg <= LEG_LENGTHS[1]:
        return
    fits = [f"{unit:.4g} ({name})" for name, unit in _UNITS.items() if 0.6 < leg / metres_per_unit * unit < 1.1]
    raise ValueError(
        f"the skeleton's legs are {leg:.3g} m from hip to ankle, which no person has: the file's unit of length is "
        f"not {metres_per_unit:.4g} m; say what it is (--metres-per-unit {' or '.join(fits) or 'METRES'})."
    )


def zero_pose_up(source: SourceMotion, rig: Rig) -> Float[Tensor, "3"] | None:
    """The axis along which the skeleton stands with all rotations zero; None where its legs do not point from the head.

    Signed, in the coordinates of the file.
    """
    R = torch.eye(3, dtype=torch.float64).repeat(len(source.names), 1, 1)
    p = _pose(source, R)

    def at(joint):
        return p[source.names.index(rig.bone(joint))]

    up = at("head") - (at("L_hip") + at("R_hip")) / 2
    legs = torch.stack([at(f"{side}_ankle") - at(f"{side}_hip") for side in "LR"])
    return _axis(up) if bool((legs @ up < -0.7 * legs.norm(dim=-1) * up.norm()).all()) else None


def t_pose(source: SourceMotion, rig: Rig) -> tuple[Float[Tensor, "joints 3 3"], Float[Tensor, "joints 3"]]:
    """Rotation and position of every source joint in the T-pose: upright, facing +z, left at +x, root at the origin.

    Raises:
        ValueError: the rig relies on the file's zero pose, but nobody stands so.
    """
    eye = torch.eye(3, dtype=torch.float64)
    R = eye.repeat(len(source.names), 1, 1)
    if rig.t_pose is None:
        p = _pose(source, R)

        def at(joint):
            return p[source.names.index(rig.bone(joint))]

        left = _axis(at("L_hip") - at("R_hip"))
        hips, ankles = ((at(f"L_{part}") + at(f"R_{part}")) / 2 for part in ("hip", "ankle"))
        up = _axis(at("head") - hips)
        if bool((left.abs() == up.abs()).all()) or (ankles - hips) @ up >= 0:
            raise ValueError(
                "with all rotations zero the skeleton does not stand (its feet are not opposite its head), so its zero "
                "pose is no T-pose; name a frame in which the actor stands in one (--t-pose-frame)."
            )
        upright = torch.stack([left, up, torch.linalg.cross(left, up)])
        return upright.repeat(len(source.names), 1, 1), p @ upright.mT
    for joint, name in enumerate(source.names):
        if name in rig.t_pose:
            R[joint] = torch.as_tensor(rig.t_pose[name], dtype=torch.float64)
        elif source.parents[joint] >= 0:
            R[joint] = R[source.parents[joint]]
    return R, _pose(source, R)


def _pose(source: SourceMotion, R: Float[Tensor, "joints 3 3"]) -> Float[Tensor, "joints 3"]:
    """Positions of the joints whose world rotations are ``R``, the root at the origin."""
    p, offsets = torch.zeros(len(R), 3, dtype=R.dtype), source.offsets
    for joint, parent in enumerate(source.parents):
        if parent >= 0:
            p[joint] = p[parent] + R[parent] @ offsets[joint]
    return p


def t_pose_from_frame(source: SourceMotion, rig: Rig, frame: int) -> Rig:
    """The rig with the T-pose in which the actor stands in one frame, whichever way they face.

    Raises:
        ValueError: there is no such frame.
    """
    if not 0 <= frame < len(source):
        raise ValueError(f"frame {frame} of the T-pose does not exist: the recording has {len(source)} frames.")
    rig.check(source.names)
    left = (source.p(rig.bone("L_hip")) - source.p(rig.bone("R_hip")))[frame]
    yaw = torch.atan2(left[2], left[0])
    turn = roma.rotvec_to_rotmat(yaw * torch.tensor([0.0, 1, 0], dtype=torch.float64))
    rotmats = (turn @ source.rotmats[frame]).numpy()
    return replace(rig, t_pose=dict(zip(source.names, rotmats, strict=True)))


def reference_rotations(
    source: SourceMotion,
    rig: Rig,
    rest: Float[Tensor, "22 3"],
    R_t_pose: Float[Tensor, "joints 3 3"],
    p_t_pose: Float[Tensor, "joints 3"],
) -> dict[str, Float[Tensor, "3 3"]]:
    """World rotation (y up) of the source joint behind each SMPL-H joint while SMPL-H is in its rest pose.

    The T-pose's, with three corrections: limbs are turned onto SMPL-H's lines and rolled about them, feet are those of
    a flat foot, and what the rig has measured goes before all.
    """
    index = {name: i for i, name in enumerate(source.names)}
    eye = torch.eye(3, dtype=torch.float64)
    references = {
        joint: eye if isinstance(driver, Halfway) else R_t_pose[index[rig.bone(joint)]]
        for joint, driver in rig.joints.items()
    }
    shoulder, elbow = rig.arm_rolls
    rolls = {"hip": -KNEE_ROLL, "knee": -KNEE_ROLL, "shoulder": shoulder, "elbow": elbow, "wrist": 0.0}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        for limb in (_LEGS[side], _ARMS[side]):
            line = _mirror_mean(rest, limb, side)
            source_line = p_t_pose[index[rig.bone(JOINTS[limb[2]])]] - p_t_pose[index[rig.bone(JOINTS[limb[0]])]]
            for joint in (JOINTS[i] for i in limb):
                if joint[2:] in rolls:
                    roll = roma.rotvec_to_rotmat(line / line.norm() * np.radians(sign * rolls[joint[2:]]))
                    references[joint] = roll @ rotation_between(source_line, line) @ references[joint]
        if f"{side}_ankle" not in rig.references:
            references |= flat_foot(source, rig, rest, side)
    measured = {
        joint: roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)))
        for joint, degrees in rig.references.items()
    }
    return references | measured


def flat_foot(
    source: SourceMotion, rig: Rig, rest: Float[Tensor, "22 3"], side: str, min_frames: int = 10
) -> dict[str, Float[Tensor, "3 3"]]:
    """References of an ankle and a toe joint: their mean while the foot is planted, turned to SMPL-H's heading.

    Empty where the foot is planted in fewer than ``min_frames`` frames, or where ankle and toes are one joint.
    """
    names = [rig.bone(f"{side}_{part}") for part in ("ankle", "foot")]
    if names[0] == names[1] or len(source) < 2:
        return {}
    ankle, toes = (source.p(name) for name in names)
    speed = torch.maximum(*(torch.gradient(p, dim=0)[0].norm(dim=-1) * source.fps for p in (ankle, toes)))
    height = torch.minimum(ankle[:, 1], toes[:, 1]).quantile(FLOOR_PERCENTILE)
    planted = (speed < 0.15) & (toes[:, 1] < height + 0.05)
    if int(planted.sum()) < min_frames:
        return {}
    heading = (toes - ankle)[planted]
    wanted = rest[JOINTS.index(f"{side}_foot")] - rest[JOINTS.index(f"{side}_ankle")]
    yaw = torch.atan2(wanted[0], wanted[2]) - torch.atan2(heading[:, 0], heading[:, 2])
    turn = roma.rotvec_to_rotmat(yaw[:, None] * torch.tensor([0.0, 1, 0], dtype=torch.float64))
    return {
        f"{side}_{part}": roma.special_procrustes((turn @ source.R(name)[planted]).mean(0))
        for part, name in zip(("ankle", "foot"), names, strict=True)
    }


def place_ankles(
    R: Float[Tensor, "frames 22 3 3"],
    pelvis: Float[Tensor, "frames 3"],
    rest: Float[Tensor, "22 3"],
    targets: dict[str, Float[Tensor, "frames 3"]],
) -> Float[Tensor, "frames 22 3 3"]:
    """Bends each knee about its hinge (the thigh's lateral axis) and turns the leg until the ankle is at its target.

    Feet keep their world rotation. A target out of reach is approached as far as the rest pose's leg goes.

    Args:
        R: R_world_joint.
        targets: of the ankles, by side, meters.
    """
    R = R.clone()
    for side, (hip, knee, ankle) in _LEGS.items():
        to_target = targets[side] - (pelvis + R[:, 0] @ (rest[hip] - rest[0]))
        distance = to_target.norm(dim=-1).clamp(max=float((rest[ankle] - rest[hip]).norm()))
        thigh, shank = R[:, hip] @ (rest[knee] - rest[hip]), R[:, knee] @ (rest[ankle] - rest[knee])
        hinge = R[:, hip, :, 0]
        along = [(x * hinge).sum(-1) for x in (thigh, shank)]
        across = [x - a[:, None] * hinge for x, a in zip((thigh, shank), along, strict=True)]
        lengths = [x.norm(dim=-1) for x in across]
        flexion = torch.atan2((torch.linalg.cross(*across) * hinge).sum(-1), (across[0] * across[1]).sum(-1))
        # |thigh + shank| = distance while the shank turns about the hinge: the law of cosines in the plane of the leg.
        cosine = (distance**2 - sum(along) ** 2 - lengths[0] ** 2 - lengths[1] ** 2) / (2 * lengths[0] * lengths[1])
        bend = roma.rotvec_to_rotmat((cosine.clamp(-1, 1).acos() - flexion)[:, None] * hinge)
        swing = rotation_between(thigh + (bend @ shank[..., None])[..., 0], to_target)
        R[:, hip], R[:, knee] = swing @ R[:, hip], swing @ bend @ R[:, knee]
    return R


def on_default_body(motion: Motion) -> Motion:
    """The motion on the default body instead of one of nearly its size, as :meth:`Skeleton.mannequin_x` is.

    The middle of the hips (not the pelvis, which may lie beside it) and the ankles stay in their places, and feet keep
    their rotation in the world (:func:`place_ankles`); the other joints keep their local rotations. Betas stay.
    """
    rest = Skeleton.default().rest_joints(motion.betas)[: len(JOINTS)].double()
    R = motion.posed.rotmats[:, : len(JOINTS)].double()
    joints = motion.joints.double()
    hips = [limb[0] for limb in _LEGS.values()]
    pelvis = joints[:, hips].mean(1) - R[:, 0] @ (rest[hips].mean(0) - rest[0])
    R = place_ankles(R, pelvis, rest, {side: joints[:, limb[2]] for side, limb in _LEGS.items()})
    body_rotmats = R[:, list(PARENTS[1 : len(JOINTS)])].mT @ R[:, 1:]
    return replace(motion, root_positions=pelvis.float(), body_rotmats=body_rotmats.float(), skeleton=None)


def floor_height(
    joints: Float[Tensor, "frames 22 3"],
    rest: Float[Tensor, "22 3"],
    usual: float | None = None,
    tolerance: float = 0.04,
) -> float:
    """Floor height, meters: 1 cm under the toes of the clip's low feet, not far from the data set's ``usual``."""
    feet = list(FOOT_JOINTS)
    floor = rest[feet, 1].min() - TOE_HEIGHT
    height = (joints[:, feet, 2] - (rest[feet, 1] - floor)).amin(dim=1)
    lowest = float(height.quantile(FLOOR_PERCENTILE))
    return lowest if usual is None else float(np.clip(lowest, usual - tolerance, usual + tolerance))


def _driver_rotation(
    source: SourceMotion, rig: Rig, R_t_pose: Float[Tensor, "joints 3 3"], joint: str
) -> Float[Tensor, "frames 3 3"]:
    """World rotation of what drives an SMPL-H joint; for a Halfway, relative to the T-pose."""
    driver = rig.joints[joint]
    if isinstance(driver, Halfway):
        first, second = (
            source.R(name) @ R_t_pose[source.names.index(name)].mT for name in (driver.first, driver.second)
        )
        return first @ roma.rotvec_to_rotmat(0.5 * roma.rotmat_to_rotvec(first.mT @ second))
    if isinstance(driver, HalfTwist):
        bone = source.R(driver.bone)
        axis = (bone[0].mT @ (source.p(driver.end) - source.p(driver.bone))[0]).clone()
        axis /= axis.norm()
        quaternion = roma.rotmat_to_unitquat(bone.mT @ source.R(driver.end))
        angle = 2 * torch.atan2(quaternion[:, :3] @ axis, quaternion[:, 3])
        # A forearm turns by more than half a turn now and then; its path is continuous, its angle about the middle.
        angle = np.unwrap(np.remainder(angle.numpy() + np.pi, 2 * np.pi) - np.pi)
        angle = torch.from_numpy(angle - 2 * np.pi * np.round(np.median(angle) / (2 * np.pi)))
        return bone @ roma.rotvec_to_rotmat(0.5 * angle[:, None] * axis)
    return source.R(driver)


def _axis(v: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """The coordinate axis nearest to a direction."""
    largest = int(v.abs().argmax())
    return torch.eye(3, dtype=v.dtype)[largest] * v[largest].sign()


def _mirror_mean(rest: Float[Tensor, "22 3"], limb: tuple[int, ...], side: str) -> Float[Tensor, "3"]:
    """First to last joint of a limb at rest without the body's small asymmetry, which is no pose."""
    other = (_LEGS if limb in _LEGS.values() else _ARMS)["R" if side == "L" else "L"]
    mirror = torch.tensor([-1.0, 1, 1], dtype=rest.dtype)
    return (rest[limb[2]] - rest[limb[0]] + mirror * (rest[other[2]] - rest[other[0]])) / 2


def _bone_lengths(joints: Float[Tensor, "joints 3"]) -> float:
    return float(joints.diff(dim=0).norm(dim=-1).sum())


def _limb_length(p: Float[Tensor, "joints 3"], source: SourceMotion, rig: Rig, limb: tuple[int, ...]) -> float:
    return _bone_lengths(p[[source.names.index(rig.bone(JOINTS[joint])) for joint in limb]])


def _betas0(stature: float, skeleton: Skeleton) -> float:
    """The first shape parameter, kept within what the shape space describes well."""
    return round(float(skeleton.betas_of_stature(stature)[0].clamp(-3, 3)), 2)


def _stature(source: SourceMotion, rig: Rig, p_t_pose: Float[Tensor, "joints 3"], skeleton: Skeleton) -> float:
    """Meters: the mean body's times the source's size over it, from ankle-to-shoulder height (half), legs and arms."""
    p_t_pose = p_t_pose[[source.names.index(rig.bone(joint)) for joint in JOINTS]]

    def sizes(p: Float[Tensor, "22 3"]) -> Float[np.ndarray, "3"]:
        leg, arm = (np.mean([_bone_lengths(p[list(limb)]) for limb in limbs.values()]) for limbs in (_LEGS, _ARMS))
        trunk = (p[[_ARMS[s][0] for s in "LR"]] - p[[_LEGS[s][0] for s in "LR"]]).mean(0).norm()
        return np.array([leg, arm, leg + float(trunk)])

    ratios = sizes(p_t_pose) / sizes(skeleton.J0[: len(JOINTS)].double())
    return float(ratios @ [0.25, 0.25, 0.5]) * float(skeleton.stature(torch.zeros(NUM_BETAS)))
