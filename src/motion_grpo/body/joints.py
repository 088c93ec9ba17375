"""The SMPL-H joint list, its tree and every index constant of the library, in one place.

SMPL-H has 52 joints: the root (pelvis), 21 body joints and 15 joints a hand (Romero et al. 2017). "Body joints"
excludes the root, so body joint ``i`` is SMPL-H joint ``i + 1``.
"""

BODY_JOINT_NAMES: tuple[str, ...] = (
    "L_hip", "R_hip", "spine1", "L_knee", "R_knee", "spine2", "L_ankle", "R_ankle", "spine3", "L_foot", "R_foot",
    "neck", "L_collar", "R_collar", "head", "L_shoulder", "R_shoulder", "L_elbow", "R_elbow", "L_wrist", "R_wrist",
)  # fmt: skip
FINGER_NAMES: tuple[str, ...] = ("index", "middle", "pinky", "ring", "thumb")
HAND_JOINT_NAMES: tuple[str, ...] = tuple(
    f"{side}_{finger}{knuckle}" for side in "LR" for finger in FINGER_NAMES for knuckle in (1, 2, 3)
)
JOINT_NAMES: tuple[str, ...] = ("pelvis", *BODY_JOINT_NAMES, *HAND_JOINT_NAMES)

NUM_JOINTS = 52
NUM_BODY_JOINTS = 21
NUM_BODY_AND_ROOT = 22
"""Without hands: the first of the list."""
NUM_HAND_JOINTS = 30
NUM_BETAS = 16

_BODY_PARENTS: tuple[int, ...] = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_HAND_PARENTS: tuple[int, ...] = tuple(
    wrist if knuckle == 0 else NUM_BODY_AND_ROOT + 15 * side + 3 * finger + knuckle - 1
    for side, wrist in enumerate((20, 21))
    for finger in range(5)
    for knuckle in range(3)
)
SMPLX_TO_SMPLH: tuple[int, ...] = (*range(NUM_BODY_AND_ROOT), *range(25, 55))
"""Of SMPL-X's 55 joints those that SMPL-H has: all but jaw and eyes."""
PARENTS: tuple[int, ...] = _BODY_PARENTS + _HAND_PARENTS
"""Parent of every SMPL-H joint; -1 for the root."""


def _levels(parents: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        depth[joint] = 0 if parent < 0 else depth[parent] + 1
    return tuple(tuple(j for j, d in enumerate(depth) if d == level) for level in range(1, max(depth) + 1))


LEVELS: tuple[tuple[int, ...], ...] = _levels(PARENTS)
"""Joints of equal depth below the root, shallowest first: forward kinematics takes one batched step a level."""

PELVIS, NECK, HEAD, LEFT_WRIST, RIGHT_WRIST = 0, 12, 15, 20, 21
LEFT_ANKLE, RIGHT_ANKLE, LEFT_FOOT, RIGHT_FOOT = 7, 8, 10, 11
LEFT_SHOULDER, RIGHT_SHOULDER = 16, 17
FOOT_JOINTS: tuple[int, ...] = (LEFT_ANKLE, RIGHT_ANKLE, LEFT_FOOT, RIGHT_FOOT)
"""Ankles, then toe bases."""
WRIST_JOINTS: tuple[int, ...] = (LEFT_WRIST, RIGHT_WRIST)


def _moved_under_head() -> tuple[tuple[bool, ...], ...]:
    below = [{joint} for joint in range(NUM_BODY_AND_ROOT)]
    for joint in reversed(range(1, NUM_BODY_AND_ROOT)):
        below[PARENTS[joint]] |= below[joint]
    moved = [below[PELVIS] - below[j] if HEAD in below[j] else below[j] - {j} for j in range(NUM_BODY_AND_ROOT)]
    return tuple(tuple(other in others for other in range(NUM_BODY_AND_ROOT)) for others in moved)


MOVED_UNDER_HEAD: tuple[tuple[bool, ...], ...] = _moved_under_head()
"""Of the root and each body joint, which of the 22 joints its rotation moves where the body hangs from a head that is
held still: what is below it, or, where the head itself is below it, all the rest. The root's moves none."""

_SWAP = {"L": "R", "R": "L"}
MIRROR: tuple[int, ...] = tuple(
    JOINT_NAMES.index(_SWAP[name[0]] + name[1:]) if name[1] == "_" else index for index, name in enumerate(JOINT_NAMES)
)
"""The joint on the other side of the body, for every joint."""
