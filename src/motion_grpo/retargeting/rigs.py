"""Skeletons of published motion capture: which joint drives which of SMPL-H's, and how each stands in its T-pose."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from motion_grpo.body.joints import BODY_JOINT_NAMES

JOINTS = ("pelvis", *BODY_JOINT_NAMES)
"""SMPL-H's joints that a retarget fills; hands stay flat."""
CMU_UNIT = 0.0254 / 0.45
"""Meters: CMU's files count in inches divided by 0.45."""


@dataclass(frozen=True)
class Halfway:
    """Drives a joint by the rotation halfway between those of two source joints, both relative to the T-pose."""

    first: str
    second: str


@dataclass(frozen=True)
class HalfTwist:
    """Drives a joint by ``bone`` plus half the turn of ``end`` about it: for forearms that carry no pronation."""

    bone: str
    end: str


Driver = str | Halfway | HalfTwist


@dataclass(frozen=True, eq=False)
class Rig:
    """What has to be known of a skeleton to retarget from it."""

    name: str
    joints: Mapping[str, Driver]
    """What drives each SMPL-H joint: all 22. Two may have the same driver; the child is then stiff."""
    t_pose: Mapping[str, Float[np.ndarray, "3 3"]] | None = None
    """World rotation of source joints in the T-pose (y up, facing +z); one that is not named takes its parent's. None:
    the file's zero pose is the T-pose, arms or legs may be splayed."""
    folded: bool = False
    """Whether all bones lie along one axis in the zero pose. Files whose zero pose stands have been exported anew: it
    is their T-pose, and ``t_pose`` does not hold."""
    references: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Measured, by SMPL-H joint: rotation vector in degrees of the source joint while SMPL-H is in its rest pose. Goes
    before what follows from the T-pose."""
    arm_rolls: tuple[float, float] = (0.0, 0.0)
    """Degrees by which the left shoulder and elbow are rolled about the arm, where the elbow's hinge is not SMPL's."""
    betas0: float | None = None
    """Body size where the publisher put every actor on one skeleton; None: estimated."""
    floor: float | None = None
    """Usual height, meters, of the ground after retargeting."""
    floor_tolerance: float = 0.04
    """Meters by which a clip's own may lie from it (jumps, climbing, uneven ground)."""
    metres_per_unit: float = 0.01
    root_offset_added: bool = False
    """Whether a BVH's root position channels count from the root's OFFSET."""

    def bone(self, joint: str) -> str:
        """The source joint that stands where the SMPL-H joint does."""
        driver = self.joints[joint]
        return driver if isinstance(driver, str) else driver.second if isinstance(driver, Halfway) else driver.bone

    def sources(self) -> list[str]:
        """Names of all source joints that are needed."""
        names: dict[str, None] = {}
        for driver in self.joints.values():
            names |= dict.fromkeys([driver] if isinstance(driver, str) else vars(driver).values())
        return list(names)

    def rename(self, names: Sequence[str]) -> list[str]:
        """Names of a file's joints with this rig's in place of those that differ in spelling alone.

        Case, blanks, ``_`` and ``-`` do not count, nor does what stands before every name: ``mixamorig_Hips``,
        ``mixamorigHips`` and ``Character1_Hips`` are ``Hips``.
        """
        plain = [_plain(name) for name in names]
        own = {_plain(name): name for name in self.sources()}
        pelvis = _plain(self.bone("pelvis")) if "pelvis" in self.joints else None
        ends = [name.removesuffix(pelvis) for name in plain if name.endswith(pelvis)] if pelvis else []
        prefixes = dict.fromkeys(["", *ends])
        spelled = [[own.get(name.removeprefix(prefix), "") for name in plain] for prefix in prefixes]
        best = max(spelled, key=lambda found: len(set(found)))
        # A name that two joints of the file could have stays with the one that is spelled so.
        doubtful = {name for name in best if best.count(name) > 1}
        return [new if new and new not in doubtful else old for old, new in zip(names, best, strict=True)]

    def missing(self, names: Iterable[str]) -> list[str]:
        """What the rig needs and ``names`` lacks: ``L_hip (LeftUpLeg)``."""
        names = set(names)
        missing = []
        for joint in JOINTS:
            driver = self.joints.get(joint)
            needed = [] if driver is None else [driver] if isinstance(driver, str) else list(vars(driver).values())
            if driver is None or not names.issuperset(needed):
                missing.append(f"{joint} ({' and '.join(n for n in needed if n not in names) or 'not in the map'})")
        return missing

    def check(self, names: Iterable[str]) -> None:
        """Raises ValueError that lists the joints which do not map."""
        missing = self.missing(names)
        if missing:
            raise ValueError(
                f"the skeleton does not fit rig '{self.name}': nothing drives {', '.join(missing)}; the file's joints "
                f"are {', '.join(names)}."
            )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _both_sides(left: Mapping[str, Driver], swap: tuple[str, str]) -> dict[str, Driver]:
    """Adds the right side to a map of the trunk and the left side by exchanging a piece of the names."""

    def right(driver: Driver) -> Driver:
        if isinstance(driver, str):
            return driver.replace(*swap, 1)
        return type(driver)(*(name.replace(*swap, 1) for name in vars(driver).values()))

    sides = {joint: driver for joint, driver in left.items() if joint.startswith("L_")}
    return {**left, **{"R_" + joint[2:]: right(driver) for joint, driver in sides.items()}}


_LEFT, _UP, _FORWARD = np.eye(3)


def _axes(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Rotation of a joint whose x and y axes point so in the T-pose."""
    return np.stack([x, y, np.cross(x, y)], axis=1)


_BANDAI_LEFT = {
    "pelvis": "Hips", "spine1": Halfway("Hips", "Spine"), "spine2": "Spine", "spine3": "Chest", "neck": "Neck",
    "head": "Head", "L_collar": "Shoulder_L", "L_shoulder": "UpperArm_L", "L_elbow": "LowerArm_L", "L_wrist": "Hand_L",
    "L_hip": "UpperLeg_L", "L_knee": "LowerLeg_L", "L_ankle": "Foot_L", "L_foot": "Toes_L",
}  # fmt: skip
_BANDAI_T_POSE = {
    "joint_Root": np.eye(3), "Hips": _axes(_UP, -_LEFT), "Spine": _axes(_UP, _FORWARD), "Shoulder_L": np.eye(3),
    "Shoulder_R": _axes(_LEFT, -_UP), "UpperLeg_L": _axes(-_UP, _LEFT), "UpperLeg_R": _axes(_UP, _LEFT),
}  # fmt: skip
# Feet here and below: mean of the planted frames over the data set, turned to SMPL's heading.
BANDAI = Rig(
    name="bandai",
    joints=_both_sides(_BANDAI_LEFT, ("_L", "_R")),
    t_pose=_BANDAI_T_POSE,
    references={
        "L_ankle": (-52.58, -23.13, -73.0), "R_ankle": (100.94, 84.72, -31.2),
        "L_foot": (-63.39, -36.07, -65.51), "R_foot": (90.9, 71.82, -45.17),
    },
    betas0=-1.15,
    floor=0.0364,
)  # fmt: skip
"""Bandai-Namco-Research-Motiondataset-1 and -2: bone-local frames, one skeleton of 1.61 m for all actors."""

_ASF_LEFT = {
    "pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax",
    "neck": Halfway("lowerneck", "upperneck"), "head": "head", "L_collar": "lclavicle", "L_shoulder": "lhumerus",
    "L_elbow": HalfTwist("lradius", "lwrist"), "L_wrist": "lhand", "L_hip": "lfemur", "L_knee": "ltibia",
    "L_ankle": "lfoot", "L_foot": "ltoes",
}  # fmt: skip
_ASF_RIGHT = {
    "R_" + joint[2:]: HalfTwist("rradius", "rwrist") if isinstance(driver, HalfTwist) else "r" + driver[1:]
    for joint, driver in _ASF_LEFT.items()
    if joint.startswith("L_")
}
# CMU's elbow hinge is 30 degrees off the vertical in its T-pose, SMPL's about 10; the forearm takes half of that.
_CMU_ARM_ROLLS = (20.0, 10.0)
_CMU_FEET = {
    "L_ankle": (-0.81, 21.64, -18.65), "R_ankle": (0.11, -17.08, 16.09),
    "L_foot": (-2.62, 21.35, -18.33), "R_foot": (-0.84, -16.82, 16.21),
}  # fmt: skip
CMU_ASF = Rig(
    name="cmu-asf",
    joints=_ASF_LEFT | _ASF_RIGHT,
    references=_CMU_FEET,
    arm_rolls=_CMU_ARM_ROLLS,
    floor=0.0,
    metres_per_unit=CMU_UNIT,
)
"""The CMU database's own ASF/AMC; zero pose with legs splayed by 20 degrees."""

_CMU_LEFT = {
    "pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1", "neck": Halfway("Neck", "Neck1"),
    "head": "Head", "L_collar": "LeftShoulder", "L_shoulder": "LeftArm",
    "L_elbow": HalfTwist("LeftForeArm", "LeftHand"), "L_wrist": "LeftFingerBase", "L_hip": "LeftUpLeg",
    "L_knee": "LeftLeg", "L_ankle": "LeftFoot", "L_foot": "LeftToeBase",
}  # fmt: skip
CMU_BVH = Rig(
    name="cmu",
    joints=_both_sides(_CMU_LEFT, ("Left", "Right")),
    references=_CMU_FEET,
    arm_rolls=_CMU_ARM_ROLLS,
    floor=0.0,
    metres_per_unit=CMU_UNIT,
)
"""The CMU database as BVH by B. Hahne (cgspeed.com): the ASF's bones under other names, in the ASF's unit."""

_LAFAN_LEFT = {
    "pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head",
    "L_collar": "LeftShoulder", "L_shoulder": "LeftArm", "L_elbow": "LeftForeArm", "L_wrist": "LeftHand",
    "L_hip": "LeftUpLeg", "L_knee": "LeftLeg", "L_ankle": "LeftFoot", "L_foot": "LeftToe",
}  # fmt: skip
_DOWN_THE_FOOT = -np.sin(np.radians(26)) * _UP + np.cos(np.radians(26)) * _FORWARD
_LAFAN_T_POSE = {"Hips": _axes(_UP, _FORWARD)}
for _side, _out in (("Left", _LEFT), ("Right", -_LEFT)):
    _LAFAN_T_POSE |= {
        f"{_side}Shoulder": _axes(_out, -_FORWARD),
        f"{_side}UpLeg": _axes(-_UP, _FORWARD),
        f"{_side}Foot": _axes(_DOWN_THE_FOOT, np.cross(-_LEFT, _DOWN_THE_FOOT)),
        f"{_side}Toe": _axes(_FORWARD, _UP),
    }
LAFAN1 = Rig(name="lafan1", joints=_both_sides(_LAFAN_LEFT, ("Left", "Right")), t_pose=_LAFAN_T_POSE, folded=True)
"""Ubisoft's LAFAN1 and data sets in its format: x along every bone, zero pose not a T-pose."""

MIXAMO = Rig(name="mixamo", joints=_both_sides(_LAFAN_LEFT | {"L_foot": "LeftToeBase"}, ("Left", "Right")))
"""Mixamo's, MotionBuilder's and Rokoko's usual names; the zero pose is a T- or A-pose."""

_CC_LEFT = {
    "pelvis": "CC_Base_Hip", "spine1": "CC_Base_Waist", "spine2": "CC_Base_Spine01", "spine3": "CC_Base_Spine02",
    "neck": Halfway("CC_Base_NeckTwist01", "CC_Base_NeckTwist02"), "head": "CC_Base_Head",
    "L_collar": "CC_Base_L_Clavicle", "L_shoulder": "CC_Base_L_Upperarm",
    "L_elbow": HalfTwist("CC_Base_L_Forearm", "CC_Base_L_Hand"), "L_wrist": "CC_Base_L_Hand",
    "L_hip": "CC_Base_L_Thigh", "L_knee": "CC_Base_L_Calf", "L_ankle": "CC_Base_L_Foot", "L_foot": "CC_Base_L_ToeBase",
}  # fmt: skip
# Fitted on 11 takes that exist both in the CMU database's own format and on this rig (medians).
_CC_REFERENCES = {
    "pelvis": (0.0, 0.0, -0.24), "L_hip": (-13.37, 2.36, -177.97), "R_hip": (-13.67, -0.6, 177.89),
    "spine1": (16.23, -0.02, 0.01), "L_knee": (-14.33, 4.12, -177.98), "R_knee": (-14.72, -4.84, 178.04),
    "spine2": (-5.02, -0.02, 0.0), "L_ankle": (-31.22, -104.53, -131.58), "R_ankle": (-26.18, 103.5, 135.25),
    "spine3": (-10.33, -0.02, 0.0), "L_foot": (-25.97, -125.61, -111.25), "R_foot": (-19.05, 113.24, 127.31),
    "neck": (10.43, -0.02, 0.02), "L_collar": (-11.43, 11.95, -87.83), "R_collar": (-11.46, -11.98, 87.83),
    "head": (-0.02, -0.02, 0.01), "L_shoulder": (12.9, 18.98, -97.28), "R_shoulder": (13.15, -19.02, 97.3),
    "L_elbow": (2.44, 9.14, -96.47), "R_elbow": (6.75, -12.64, 96.38), "L_wrist": (-12.24, 1.39, -101.48),
    "R_wrist": (0.27, -9.69, 101.87),
}  # fmt: skip
CC_BASE = Rig(
    name="cc",
    joints=_both_sides(_CC_LEFT, ("_L_", "_R_")),
    t_pose={},
    references=_CC_REFERENCES,
    betas0=0.3,
    floor=0.0014,
    root_offset_added=True,
)
"""Reallusion's CC_Base, as iClone exports it; every actor on one dummy, whose true size is lost (1.75 m is taken)."""

_CHEST_LEFT = {
    "pelvis": "Hips", "spine1": "Chest", "spine2": Halfway("Chest2", "Chest3"), "spine3": "Chest4", "neck": "Neck",
    "head": "Head", "L_collar": "LeftCollar", "L_shoulder": "LeftShoulder", "L_elbow": "LeftElbow",
    "L_wrist": "LeftWrist", "L_hip": "LeftHip", "L_knee": "LeftKnee", "L_ankle": "LeftAnkle", "L_foot": "LeftToe",
}  # fmt: skip
STYLE100 = Rig(name="100style", joints=_both_sides(_CHEST_LEFT, ("Left", "Right")))
"""100STYLE's, SAMP's and aitviewer's names, which Xsens MVN writes; the zero pose is a T-pose."""

_SOMA_LEFT = {
    "pelvis": "Hips", "spine1": "Spine1", "spine2": "Spine2", "spine3": "Chest", "neck": Halfway("Neck1", "Neck2"),
    "head": "Head", "L_collar": "LeftShoulder", "L_shoulder": "LeftArm", "L_elbow": "LeftForeArm",
    "L_wrist": "LeftHand", "L_hip": "LeftLeg", "L_knee": "LeftShin", "L_ankle": "LeftFoot", "L_foot": "LeftToeBase",
}  # fmt: skip
# Of the standard T-pose in NVIDIA's kimodo (assets/skeletons/somaskel77, Apache-2.0): rotation vectors in degrees.
_SOMA_T_POSE = {
    "Root": (0.0, 0.0, 0.0), "Hips": (69.142, 69.372, 69.142), "Spine1": (69.105, 69.395, 69.105),
    "Spine2": (64.717, 72.089, 64.717), "Chest": (69.133, 69.378, 69.133), "Neck1": (81.344, 60.599, 81.344),
    "Neck2": (82.093, 59.994, 82.093), "Head": (64.287, 72.34, 64.288), "LeftShoulder": (88.978, 15.884, -15.884),
    "LeftArm": (90.0, 0.0, 0.0), "LeftForeArm": (90.0, 0.0, 0.0), "LeftHand": (99.712, 0.0, 0.0),
    "RightShoulder": (-88.978, -15.884, -15.884), "RightArm": (-90.0, 0.0, 0.0), "RightForeArm": (-90.0, 0.0, 0.0),
    "RightHand": (-80.288, 0.0, 0.0), "LeftLeg": (-68.498, 69.782, -68.498), "LeftShin": (-65.792, 71.45, -65.792),
    "LeftFoot": (-115.862, 21.396, -115.862), "LeftToeBase": (-118.503, 16.862, -118.678),
    "RightLeg": (70.065, 68.776, 70.065), "RightShin": (72.745, 66.985, 72.745),
    "RightFoot": (16.419, 88.908, 16.419), "RightToeBase": (12.725, 89.43, 12.706),
}  # fmt: skip
SOMA77 = Rig(
    name="soma77",
    joints=_both_sides(_SOMA_LEFT, ("Left", "Right")),
    t_pose={name: Rotation.from_rotvec(v, degrees=True).as_matrix() for name, v in _SOMA_T_POSE.items()},
    folded=True,
)
"""NVIDIA's SOMA skeleton: BONES-SEED and what kimodo writes; x along every bone, zero pose not a T-pose."""

RIGS: dict[str, Rig] = {rig.name: rig for rig in (BANDAI, CC_BASE, CMU_BVH, MIXAMO, LAFAN1, STYLE100, SOMA77, CMU_ASF)}


def find_rig(names: Sequence[str]) -> Rig:
    """The rig whose joints are all there, whatever prefix and spelling the names have (:meth:`Rig.rename`).

    Raises:
        ValueError: none fits; says which is nearest and what it lacks.
    """
    lacking = {name: rig.missing(rig.rename(names)) for name, rig in RIGS.items()}
    best = min(lacking, key=lambda name: len(lacking[name]))
    if not lacking[best]:
        return RIGS[best]
    if len(lacking[best]) == len(JOINTS):
        raise ValueError(
            f"no known rig has joints named like the file's, which are {', '.join(names)}; give a joint map, a YAML "
            f"file with a line such as 'L_hip: LeftUpLeg' for each of {', '.join(JOINTS)} (--rig FILE)."
        )
    found = len(JOINTS) - len(lacking[best])
    raise ValueError(
        f"no rig fits; '{best}' comes nearest, with {found} of {len(JOINTS)} joints: nothing drives "
        f"{', '.join(lacking[best])}. The file's joints are {', '.join(names)}. Give a joint map (--rig FILE)."
    )


def read_joint_map(path: str | Path) -> Rig:
    """A rig from a YAML or JSON file: one line an SMPL-H joint with the name of the source joint that drives it.

    ``neck: [Neck, Neck1]`` is driven by the rotation halfway between two. The zero pose has to be a T- or A-pose unless
    a frame with one is named at import.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a map of joint names.
    """
    content = yaml.safe_load(Path(path).read_text())
    joints = {}
    for joint, driver in content.items() if isinstance(content, dict) else ():
        joints[joint] = Halfway(*driver) if isinstance(driver, list) and len(driver) == 2 else driver
    unknown = sorted(set(map(str, joints)) - set(RIGS["lafan1"].joints))
    if not joints or unknown or not all(isinstance(d, str | Halfway) for d in joints.values()):
        raise ValueError(
            f"{path} is no joint map: it needs lines like 'L_hip: LeftUpLeg' for {', '.join(RIGS['lafan1'].joints)}"
            f"{'; it has ' + ', '.join(unknown) if unknown else ''}."
        )
    return Rig(name=Path(path).name, joints=joints)
