from smplx.joint_names import SMPLH_JOINT_NAMES

from motion_grpo.body import (
    BODY_JOINT_NAMES,
    FOOT_JOINTS,
    HEAD,
    JOINT_NAMES,
    LEVELS,
    MIRROR,
    NUM_BODY_JOINTS,
    NUM_HAND_JOINTS,
    NUM_JOINTS,
    PARENTS,
    PELVIS,
)
from motion_grpo.body import joints as constants

PARENT_OF = {
    "L_hip": "pelvis", "L_knee": "L_hip", "L_ankle": "L_knee", "L_foot": "L_ankle", "spine1": "pelvis",
    "spine2": "spine1", "spine3": "spine2", "neck": "spine3", "head": "neck", "L_collar": "spine3",
    "L_shoulder": "L_collar", "L_elbow": "L_shoulder", "L_wrist": "L_elbow", "L_index1": "L_wrist",
    "L_middle1": "L_wrist", "L_pinky1": "L_wrist", "L_ring1": "L_wrist", "L_thumb1": "L_wrist",
    "L_index2": "L_index1", "L_index3": "L_index2", "L_middle2": "L_middle1", "L_middle3": "L_middle2",
    "L_pinky2": "L_pinky1", "L_pinky3": "L_pinky2", "L_ring2": "L_ring1", "L_ring3": "L_ring2",
    "L_thumb2": "L_thumb1", "L_thumb3": "L_thumb2",
}  # fmt: skip


def test_names_are_those_of_smplx_in_its_order() -> None:
    assert [name.replace("L_", "left_").replace("R_", "right_") for name in JOINT_NAMES] == SMPLH_JOINT_NAMES[:52]
    assert JOINT_NAMES[1:22] == BODY_JOINT_NAMES
    assert (len(JOINT_NAMES), len(BODY_JOINT_NAMES)) == (NUM_JOINTS, NUM_BODY_JOINTS)
    assert NUM_JOINTS == 1 + NUM_BODY_JOINTS + NUM_HAND_JOINTS


def test_tree_is_anatomical() -> None:
    tree = {JOINT_NAMES[joint]: JOINT_NAMES[parent] for joint, parent in enumerate(PARENTS) if parent >= 0}
    right = {joint.replace("L_", "R_"): parent.replace("L_", "R_") for joint, parent in PARENT_OF.items()}
    assert tree == PARENT_OF | right
    assert PARENTS[PELVIS] == -1


def test_levels_hold_each_joint_once_after_its_parent() -> None:
    assert sorted(joint for level in LEVELS for joint in level) == list(range(1, NUM_JOINTS))
    placed = {PELVIS}
    for level in LEVELS:
        assert {PARENTS[joint] for joint in level} <= placed
        placed |= set(level)


def test_mirror_swaps_sides_and_keeps_the_tree() -> None:
    assert [MIRROR[joint] for joint in MIRROR] == list(range(NUM_JOINTS))
    assert [JOINT_NAMES[joint] for joint in range(NUM_JOINTS) if MIRROR[joint] == joint] == [
        "pelvis", "spine1", "spine2", "spine3", "neck", "head",
    ]  # fmt: skip
    assert all(PARENTS[MIRROR[joint]] == MIRROR[PARENTS[joint]] for joint in range(1, NUM_JOINTS))
    assert JOINT_NAMES[MIRROR[JOINT_NAMES.index("L_thumb3")]] == "R_thumb3"


def test_index_constants_are_the_joints_they_are_called_after() -> None:
    assert JOINT_NAMES[HEAD] == "head"
    assert [JOINT_NAMES[joint] for joint in FOOT_JOINTS] == ["L_ankle", "R_ankle", "L_foot", "R_foot"]
    assert JOINT_NAMES[constants.LEFT_WRIST] == "L_wrist"
    assert JOINT_NAMES[constants.RIGHT_WRIST] == "R_wrist"
