"""Remakes the example recordings: real motion capture of the CMU database as SMPL-H motion and as a head trajectory.

    pip install "motion-grpo[examples]"
    python examples/make_examples.py [folder]

Writes NAME.npz (AMASS: the body's true motion) and NAME.csv (what a head-mounted device would have recorded of it).
Every SMPL-H joint takes the world rotation of a body of the CMU humanoid, measured from a T-pose that both share;
two-bone inverse kinematics then puts the ankles where the humanoid has them, so that planted feet stay planted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from cmu_humanoid import HumanoidMotion, load_motion, zero_pose
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BETAS, NUM_JOINTS, PARENTS, Skeleton, cpf_of, forward_kinematics
from motion_grpo.body.joints import BODY_JOINT_NAMES
from motion_grpo.motion.contacts import TOE_HEIGHT

FPS = 30.0
JOINTS = ("pelvis", *BODY_JOINT_NAMES)


@dataclass(frozen=True)
class Example:
    clip: str
    model: str
    """Year of the humanoid the clip was fitted to."""
    start: float
    stop: float
    """Seconds of the clip."""
    leg_length: float
    """Hip to knee to ankle of the subject in meters: bones of the subject's skeleton in the CMU database (left and
    right averaged), whose unit is 0.0254 / 0.45 m. The humanoid has one size for everybody."""
    floor_slopes: bool = False
    """The floor of the recording is not level (1.3 degrees for CMU_047_01) and has to be made so."""


EXAMPLES = {
    "walk_turns": Example("CMU_047_01", "2020", start=0.0, stop=10.9, leg_length=0.851, floor_slopes=True),
    "brisk_walk": Example("CMU_016_32", "2020", start=0.0, stop=4.7, leg_length=0.836),
    "look_around": Example("CMU_077_02", "2019", start=2.5, stop=12.5, leg_length=0.781),
}

# The body that drives each joint (the left side's; the right side's begins with r). The neck takes the mean of its two.
SOURCE = {
    "pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax", "neck": "upperneck",
    "head": "head", "L_collar": "lclavicle", "L_hip": "lfemur", "L_knee": "ltibia", "L_ankle": "lfoot",
    "L_foot": "ltoes", "L_shoulder": "lhumerus", "L_elbow": "lradius", "L_wrist": "lhand",
}  # fmt: skip
SOURCE |= {joint.replace("L_", "R_"): "r" + body[1:] for joint, body in SOURCE.items() if joint.startswith("L_")}
# Hinges sit differently in the two T-poses, so limbs are rolled about their own line, in degrees on the left: SMPL's
# knees point 9 degrees outward; the humanoid's elbow hinge is 30 degrees off the vertical, SMPL's about 10, and the
# forearm takes half of that.
ROLL = {"hip": -9.0, "knee": -9.0, "shoulder": 20.0, "elbow": 10.0, "wrist": 0.0}
# Where the toe joints of a flat foot lie is TOE_HEIGHT; the rest pose says how far above them the ankles are.
FLOOR_PERCENTILE = 4.0


def rotation_between(a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The smallest rotation that takes direction a to direction b."""
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    axis = torch.linalg.cross(a, b)
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (a * b).sum(-1, keepdim=True))
    return roma.rotvec_to_rotmat(axis / sine.clamp(min=1e-12) * angle)


def leg_and_arm_line(rest: Float[Tensor, "52 3"], side: str, limb: str) -> Float[Tensor, "3"]:
    """Hip to ankle or shoulder to wrist in SMPL-H's rest pose, without its small asymmetry, which is not a pose."""
    first, last = ("hip", "ankle") if limb == "leg" else ("shoulder", "wrist")
    left, right = (rest[JOINTS.index(f"{s}_{last}")] - rest[JOINTS.index(f"{s}_{first}")] for s in "LR")
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=rest.dtype)
    line = (left + mirror * right) / 2
    return line if side == "L" else mirror * line


def flat_foot(motion: HumanoidMotion, rest: Float[Tensor, "52 3"], side: str, joint: str) -> Float[Tensor, "3 3"]:
    """World rotation (y up) of a foot's body when the foot stands flat and points where SMPL-H's rest foot points.

    The mean over the frames in which the foot is planted, each turned to that heading.
    """
    foot, toes = (motion.p(side.lower() + name) for name in ("foot", "toes"))
    speed = torch.maximum(*(torch.gradient(p, dim=0)[0].norm(dim=-1) * FPS for p in (foot, toes)))
    planted = (speed < 0.15) & (toes[:, 2] < toes[:, 2].quantile(0.05) + 0.05)
    y_up = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=rest.dtype)
    R = y_up @ motion.R(SOURCE[joint])[planted]
    heading = (toes - foot)[planted] @ y_up.mT
    wanted = rest[JOINTS.index(f"{side}_foot")] - rest[JOINTS.index(f"{side}_ankle")]
    yaw = torch.atan2(wanted[0], wanted[2]) - torch.atan2(heading[:, 0], heading[:, 2])
    R = roma.rotvec_to_rotmat(yaw[:, None] * torch.tensor([0.0, 1, 0], dtype=rest.dtype)) @ R
    return roma.special_procrustes(R.mean(0))


def reference_rotations(
    example: Example, motion: HumanoidMotion, rest: Float[Tensor, "52 3"]
) -> dict[str, Float[Tensor, "3 3"]]:
    """World rotation (y up) of the body behind each joint when SMPL-H is in its rest pose."""
    zero = zero_pose(example.model)
    reference = {}
    for joint in JOINTS:
        R = zero.R(SOURCE[joint])[0]
        side, part = joint[0], joint[2:]
        if part in ("ankle", "foot"):
            R = flat_foot(motion, rest, side, joint)
        elif part in ROLL:
            limb = "leg" if part in ("hip", "knee") else "arm"
            first, last = ("femur", "foot") if limb == "leg" else ("humerus", "hand")
            line = leg_and_arm_line(rest, side, limb)
            source_line = (zero.p(side.lower() + last) - zero.p(side.lower() + first))[0]
            roll = np.radians(ROLL[part]) * (1 if side == "L" else -1)
            R = roma.rotvec_to_rotmat(line / line.norm() * roll) @ rotation_between(source_line, line) @ R
        reference[joint] = R
    return reference


def world_rotations(
    example: Example, motion: HumanoidMotion, rest: Float[Tensor, "52 3"]
) -> Float[Tensor, "frames 22 3 3"]:
    """R_world_joint of the SMPL-H joints, before the legs are adjusted."""
    reference = reference_rotations(example, motion, rest)
    rotations = []
    for joint in JOINTS:
        R = motion.R(SOURCE[joint])
        if joint == "neck":
            lower = motion.R("lowerneck")
            R = lower @ roma.rotvec_to_rotmat(0.5 * roma.rotmat_to_rotvec(lower.mT @ R))
        elif joint[2:] == "elbow":
            # The humanoid turns the hand at the wrist alone; SMPL-H's elbow takes half of that turn.
            half = 0.5 * motion.joint_angles[f"{joint[0].lower()}wristry"]
            R = R @ roma.rotvec_to_rotmat(half[:, None] * torch.tensor([0.0, 1, 0], dtype=R.dtype))
        rotations.append(R @ reference[joint].mT)
    return torch.stack(rotations, dim=1)


def place_ankles(
    R: Float[Tensor, "frames 22 3 3"],
    pelvis: Float[Tensor, "frames 3"],
    rest: Float[Tensor, "52 3"],
    targets: dict[str, Float[Tensor, "frames 3"]],
    hinges: dict[str, Float[Tensor, "frames 3"]],
) -> Float[Tensor, "frames 22 3 3"]:
    """Bends each knee about its hinge and turns the leg so that the ankle is at its target.

    The feet keep their rotation. A target farther than the rest leg reaches is approached as far as that leg goes.
    """
    R = R.clone()
    for side in "LR":
        hip, knee, ankle = (JOINTS.index(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
        to_target = targets[side] - (pelvis + R[:, 0] @ (rest[hip] - rest[0]))
        distance = to_target.norm(dim=-1).clamp(max=float((rest[ankle] - rest[hip]).norm()))
        thigh, shank = R[:, hip] @ (rest[knee] - rest[hip]), R[:, knee] @ (rest[ankle] - rest[knee])
        hinge = hinges[side]
        along = [(x * hinge).sum(-1) for x in (thigh, shank)]
        across = [x - a[:, None] * hinge for x, a in zip((thigh, shank), along, strict=True)]
        lengths = [x.norm(dim=-1) for x in across]
        flexion = torch.atan2((torch.linalg.cross(*across) * hinge).sum(-1), (across[0] * across[1]).sum(-1))
        # |thigh + shank| = distance, the shank turning about the hinge: the law of cosines in the plane of the leg.
        across_squared = distance**2 - (along[0] + along[1]) ** 2
        cosine = (across_squared - lengths[0] ** 2 - lengths[1] ** 2) / (2 * lengths[0] * lengths[1])
        bend = roma.rotvec_to_rotmat((cosine.clamp(-1, 1).acos() - flexion)[:, None] * hinge)
        swing = rotation_between(thigh + (bend @ shank[..., None]).squeeze(-1), to_target)
        R[:, hip], R[:, knee] = swing @ R[:, hip], swing @ bend @ R[:, knee]
    return R


def fit_betas(skeleton: Skeleton, leg_length: float) -> Float[Tensor, "16"]:
    """Betas of the body with this leg length, meters; only the first, overall size, is used."""
    unit = torch.zeros(NUM_BETAS)
    unit[0] = 1.0
    left, right = ([JOINTS.index(f"{side}_{name}") for name in ("hip", "knee", "ankle")] for side in "LR")

    def leg(betas: Tensor) -> float:
        joints = skeleton.rest_joints(betas)
        return float(sum(joints[leg].diff(dim=0).norm(dim=-1).sum() for leg in (left, right)) / 2)

    size = (leg_length - leg(0 * unit)) / (leg(unit) - leg(0 * unit))
    return unit * round(size, 2)


def load_subject(example: Example) -> HumanoidMotion:
    """The clip by a humanoid of the subject's size, on a level floor."""
    motion = load_motion(example.clip, example.model, example.start, example.stop, FPS)
    zero = zero_pose(example.model)
    leg = (zero.p("lfoot") - zero.p("ltibia")).norm() + (zero.p("ltibia") - zero.p("lfemur")).norm()
    motion = motion.resized(example.leg_length / float(leg))
    return motion.levelled() if example.floor_slopes else motion


def retarget(example: Example) -> dict[str, np.ndarray]:
    """The clip as the arrays of an AMASS file."""
    skeleton = Skeleton.default()
    betas = fit_betas(skeleton, example.leg_length)
    rest = skeleton.rest_joints(betas).double()
    motion = load_subject(example)

    R = world_rotations(example, motion, rest)
    left_hip, right_hip = JOINTS.index("L_hip"), JOINTS.index("R_hip")
    hip_centre = (motion.p("lfemur") + motion.p("rfemur")) / 2
    pelvis = hip_centre - R[:, 0] @ ((rest[left_hip] + rest[right_hip]) / 2 - rest[0])
    targets = {side: motion.p(f"{side.lower()}foot") for side in "LR"}
    hinges = {side: motion.R(f"{side.lower()}tibia")[:, :, 0] for side in "LR"}
    R = place_ankles(R, pelvis, rest, targets, hinges)

    parents = torch.tensor(PARENTS[1 : len(JOINTS)])
    local = torch.cat([R[:, :1], R[:, parents].mT @ R[:, 1:]], dim=1)
    joints = forward_kinematics(rest[: len(JOINTS)], local, pelvis).joints
    toes = [JOINTS.index("L_foot"), JOINTS.index("R_foot")]
    feet = [JOINTS.index("L_ankle"), JOINTS.index("R_ankle"), *toes]
    floor = rest[toes, 1].min() - TOE_HEIGHT
    clearance = (joints[:, feet, 2] - (rest[feet, 1] - floor)).amin(dim=1)
    pelvis[:, 2] -= clearance.quantile(FLOOR_PERCENTILE / 100)

    poses = torch.zeros(len(local), 3 * NUM_JOINTS, dtype=local.dtype)
    poses[:, : 3 * len(JOINTS)] = roma.rotmat_to_rotvec(local).flatten(1)
    # Rounded, so that the last bits of another processor's arithmetic do not show in the files.
    return {
        "poses": poses.numpy().round(5).astype(np.float32),
        "trans": (pelvis - rest[0]).numpy().round(5).astype(np.float32),
        "betas": betas.numpy(),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(FPS),
        "skeleton": np.array(skeleton.name),
    }


def head_trajectory(amass: dict[str, np.ndarray]) -> Float[np.ndarray, "frames 8"]:
    """Rows of timestamp, position (m) and wxyz quaternion of the central pupil frame, by kinematics of the motion."""
    skeleton = Skeleton.default()
    betas = torch.from_numpy(amass["betas"])
    rest = skeleton.rest_joints(betas).double()
    local = roma.rotvec_to_rotmat(torch.from_numpy(amass["poses"]).double().reshape(-1, NUM_JOINTS, 3))
    body = forward_kinematics(rest, local, torch.from_numpy(amass["trans"]).double() + rest[0])
    R_world_cpf, p_world_cpf = cpf_of(body, skeleton.cpf_offset(betas).double())
    quaternions = roma.rotmat_to_unitquat(R_world_cpf)[:, [3, 0, 1, 2]].numpy()
    flips = np.sign((quaternions[1:] * quaternions[:-1]).sum(-1))
    quaternions[1:] *= np.cumprod(flips)[:, None]
    return np.concatenate([np.arange(len(local))[:, None] / FPS, p_world_cpf.numpy(), quaternions], axis=1)


def write_example(name: str, folder: Path) -> None:
    """Writes folder/NAME.npz and folder/NAME.csv."""
    amass = retarget(EXAMPLES[name])
    npz, csv = folder / f"{name}.npz", folder / f"{name}.csv"
    with npz.with_suffix(".npz.part").open("wb") as file:
        np.savez_compressed(file, **amass)
    npz.with_suffix(".npz.part").replace(npz)
    rows = ["timestamp,x,y,z,qw,qx,qy,qz,floor_height"]
    # Adding 0.0 turns -0.0, which would print with a sign, into 0.0. The floor of every example is at 0.
    rows += [",".join(f"{value:.6f}" for value in (*row, 0.0)) for row in head_trajectory(amass).round(6) + 0.0]
    csv.with_suffix(".csv.part").write_text("\n".join(rows) + "\n", newline="\n")
    csv.with_suffix(".csv.part").replace(csv)


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    target.mkdir(parents=True, exist_ok=True)
    for example_name in EXAMPLES:
        write_example(example_name, target)
        print(f"wrote {target / example_name}.npz and .csv")
