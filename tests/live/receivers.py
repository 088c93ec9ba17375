"""Receivers on the loopback that decode what was sent by the protocols' public descriptions alone."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pythonosc.osc_packet import OscPacket
from scipy.spatial.transform import Rotation

HIERARCHY = {
    "Hips": None, "Spine": "Hips", "Chest": "Spine", "UpperChest": "Chest", "Neck": "UpperChest", "Head": "Neck",
    "LeftShoulder": "UpperChest", "LeftUpperArm": "LeftShoulder", "LeftLowerArm": "LeftUpperArm",
    "LeftHand": "LeftLowerArm", "RightShoulder": "UpperChest", "RightUpperArm": "RightShoulder",
    "RightLowerArm": "RightUpperArm", "RightHand": "RightLowerArm", "LeftUpperLeg": "Hips",
    "LeftLowerLeg": "LeftUpperLeg", "LeftFoot": "LeftLowerLeg", "LeftToes": "LeftFoot", "RightUpperLeg": "Hips",
    "RightLowerLeg": "RightUpperLeg", "RightFoot": "RightLowerLeg", "RightToes": "RightFoot",
}  # fmt: skip
"""Unity's humanoid, parents first."""


@contextmanager
def udp() -> Iterator[socket.socket]:
    """A socket at a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        yield receiver


def messages(receiver: socket.socket) -> dict[str, list[list]]:
    """One packet, by address."""
    found: dict[str, list[list]] = {}
    for timed in OscPacket(receiver.recv(65536)).messages:
        found.setdefault(timed.message.address, []).append(timed.message.params)
    return found


def right_handed(points: np.ndarray) -> np.ndarray:
    """Unity's points (x right, y up, z forward) in a z-up world with x forward and y left."""
    return np.stack([points[..., 2], -points[..., 0], points[..., 1]], axis=-1)


def right_handed_turn(R: np.ndarray) -> np.ndarray:
    """The same of rotations of a body whose own axes are x left, y up, z forward."""
    to_world = np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]])
    return to_world @ R @ np.diag([-1, 1, 1])


def vmc_skeleton(bones: list[list]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """World rotation and position of each bone, by walking the humanoid."""
    local = {name: (np.array(values[:3]), Rotation.from_quat(values[3:]).as_matrix()) for name, *values in bones}
    world: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, parent in HIERARCHY.items():
        p, R = local[name]
        if parent is not None:
            R_parent, p_parent = world[parent]
            p, R = p_parent + R_parent @ p, R_parent @ R
        world[name] = R, p
    return {name: (right_handed_turn(R), right_handed(p)) for name, (R, p) in world.items()}


def unity_euler(degrees: list[float]) -> np.ndarray:
    """Unity's Quaternion.Euler: about z, then x, then y, in the fixed axes, of a left-handed world.

    A turn by a positive angle about an axis takes the next axis to the one after it in either handedness, so that the
    matrices are the usual ones.
    """
    return Rotation.from_euler("YXZ", np.array(degrees)[[1, 0, 2]], degrees=True).as_matrix()
