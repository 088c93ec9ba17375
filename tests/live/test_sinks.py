"""What sinks send, decoded by receivers on the loopback."""

import json
import socket
import urllib.request

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from websockets.sync.client import connect

from motion_grpo.body import JOINT_NAMES, Skeleton, cpf_of
from motion_grpo.live.sinks import RecordingSink, ViewerSink, VmcSink, VrchatSink, WebSocketSink
from motion_grpo.motion import Motion
from motion_grpo.streaming import BodyPose
from motion_grpo.viz.viewer import _free_port
from tests.live.receivers import messages, right_handed, right_handed_turn, udp, unity_euler, vmc_skeleton
from tests.tiny import moving_motion

FLOOR = -0.7
SKELETON = Skeleton.default()
TRACKED = ("pelvis", "spine3", "L_ankle", "R_ankle", "L_knee", "R_knee", "L_elbow", "R_elbow")


def body_pose(motion: Motion, frame: int) -> BodyPose:
    return BodyPose(
        timestamp=float(motion.timestamps[frame]),
        local_rotmats=motion.local_rotmats[frame, :22],
        world_rotmats=motion.posed.rotmats[frame, :22],
        joints=motion.joints[frame, :22],
        betas=motion.betas,
        contacts=motion.contacts[frame],
    )


@pytest.fixture(scope="module")
def poses() -> list[BodyPose]:
    motion = moving_motion(40, seed=2)
    return [body_pose(motion, frame) for frame in (0, 13, 39)]


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.rad2deg(Rotation.from_matrix(a.T @ b).magnitude()))


def test_vmc_moves_a_humanoid_to_the_same_joints(poses: list[BodyPose]) -> None:
    with udp() as receiver:
        sink = VmcSink(*receiver.getsockname(), SKELETON, FLOOR)
        for pose in poses:
            sink.send(pose)
            got = messages(receiver)
            assert got["/VMC/Ext/OK"] == [[1]]
            assert got["/VMC/Ext/T"][0][0] == pytest.approx(pose.timestamp, abs=1e-4)
            assert got["/VMC/Ext/Root/Pos"] == [["root", 0, 0, 0, 0, 0, 0, 1]]
            bones = vmc_skeleton(got["/VMC/Ext/Bone/Pos"])
            joints = pose.joints.double().numpy() - (0, 0, FLOOR)
            for name, joint in {"Hips": "pelvis", "Head": "head", "LeftHand": "L_wrist", "RightToes": "R_foot"}.items():
                assert_allclose(bones[name][1], joints[JOINT_NAMES.index(joint)], atol=1e-3)
            # Bones that T-poses do not straighten turn as SMPL's joints do.
            for name, joint in {"Hips": "pelvis", "Chest": "spine2", "Head": "head", "LeftFoot": "L_ankle"}.items():
                R = pose.world_rotmats[JOINT_NAMES.index(joint)].double().numpy()
                assert degrees_between(bones[name][0], R) < 0.1
        sink.close()


def test_a_vmc_avatar_in_its_t_pose_has_straight_limbs(poses: list[BodyPose]) -> None:
    """An avatar's bones lie along the axes at rest: turned as was sent, they lie along the body's."""
    along = {
        ("LeftUpperArm", "LeftLowerArm"): (1, 0, 0),
        ("RightLowerArm", "RightHand"): (-1, 0, 0),
        ("LeftUpperLeg", "LeftLowerLeg"): (0, -1, 0),
    }
    with udp() as receiver:
        VmcSink(*receiver.getsockname(), SKELETON).send(poses[1])
        bones = vmc_skeleton(messages(receiver)["/VMC/Ext/Bone/Pos"])
    for (upper, lower), axis in along.items():
        bone = bones[lower][1] - bones[upper][1]
        assert_allclose(bones[upper][0] @ axis, bone / np.linalg.norm(bone), atol=2e-3)


def test_vrchat_trackers_are_at_the_joints_and_turn_with_them(poses: list[BodyPose]) -> None:
    with udp() as receiver:
        sink = VrchatSink(*receiver.getsockname(), SKELETON, FLOOR)
        for pose in poses:
            sink.send(pose)
            got = messages(receiver)
            assert len(got) == 18
            for number, name in enumerate(TRACKED, start=1):
                joint = JOINT_NAMES.index(name)
                place = right_handed(np.array(got[f"/tracking/trackers/{number}/position"][0]))
                assert_allclose(place, pose.joints[joint].double().numpy() - (0, 0, FLOOR), atol=1e-3)
                R = right_handed_turn(unity_euler(got[f"/tracking/trackers/{number}/rotation"][0]))
                assert degrees_between(R, pose.world_rotmats[joint].double().numpy()) < 0.1
            offset = SKELETON.cpf_offset(pose.betas)
            eyes = cpf_of(pose, offset)[1] if hasattr(pose, "rotmats") else None
            place = right_handed(np.array(got["/tracking/trackers/head/position"][0]))
            head = pose.joints[15] + pose.world_rotmats[15] @ offset
            assert eyes is None
            assert_allclose(place, head.double().numpy() - (0, 0, FLOOR), atol=1e-3)


def test_a_body_that_faces_forward_turns_by_no_angle_in_unity() -> None:
    """SMPL's rest pose with y up and z forward is Unity's identity; a turn to the left is negative about y."""
    upright = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # x left, y up, z forward
    joints = SKELETON.rest_joints(torch.zeros(16))[:22] @ upright.mT
    eye = torch.eye(3).repeat(21, 1, 1)
    for angle in (0.0, 30.0):
        turn = torch.from_numpy(Rotation.from_euler("z", angle, degrees=True).as_matrix()).float() @ upright
        local = torch.cat([turn[None], eye])
        pose = BodyPose(0.0, local, turn.expand(22, 3, 3), joints, torch.zeros(16), torch.zeros(21))
        with udp() as receiver:
            VrchatSink(*receiver.getsockname(), SKELETON).send(pose)
            got = messages(receiver)
        assert_allclose(got["/tracking/trackers/1/rotation"][0], [0, -angle, 0], atol=1e-3)
        left, right = (got[f"/tracking/trackers/{number}/position"][0][0] for number in (3, 4))
        assert left < 0 < right  # x points to the right


def test_websocket_clients_get_json_and_may_come_and_go(poses: list[BodyPose]) -> None:
    sink = WebSocketSink("127.0.0.1", 0)
    with connect(f"ws://127.0.0.1:{sink.port}") as first, connect(f"ws://127.0.0.1:{sink.port}") as second:
        for pose in poses[:2]:
            got = None
            for _ in range(50):  # until the client's thread listens
                sink.send(pose)
                try:
                    got = json.loads(first.recv(timeout=0.1))
                    break
                except TimeoutError:
                    continue
            assert got is not None
            assert got["timestamp"] == pose.timestamp
            assert got["joint_names"][:2] == ["pelvis", "L_hip"]
            assert_allclose(got["joints"], pose.joints.numpy(), atol=1e-3)
            R = Rotation.from_quat(got["rotations"], scalar_first=True).as_matrix()
            worst = max(degrees_between(a, b.double().numpy()) for a, b in zip(R, pose.local_rotmats, strict=True))
            assert worst < 0.1
            second.close()  # the other one still listens
    sink.send(poses[2])
    sink.close()


@pytest.mark.parametrize("suffix", [".npz", ".bvh"])
def test_a_recording_is_the_motion(suffix: str, tmp_path) -> None:
    motion = moving_motion(20)
    sink = RecordingSink(tmp_path / f"live{suffix}", SKELETON, FLOOR)
    for frame in range(20):
        sink.send(body_pose(motion, frame))
    sink.close()
    if suffix == ".npz":
        again = Motion.load(tmp_path / "live.npz")
        assert len(again) == 20
        assert_allclose(again.joints[:, :22], motion.joints[:, :22], atol=1e-3)
    else:
        assert "Frames: 20" in (tmp_path / "live.bvh").read_text()


def test_the_page_moves_its_bones(poses: list[BodyPose]) -> None:
    sink = ViewerSink(_free_port(), SKELETON, FLOOR)
    for pose in poses:
        sink.send(pose)
        (actor,) = sink._page._stage._actors
        positions = np.stack([bone.position for bone in actor.skin.bones])
        assert_allclose(positions[:22], pose.joints.numpy() - (0, 0, FLOOR), atol=1e-3)
    assert urllib.request.urlopen(sink.url).status == 200
    sink.close()


def test_ports_in_use_are_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use"):
            WebSocketSink("127.0.0.1", port)
        with pytest.raises(OSError, match=f"port {port} is in use"):
            ViewerSink(port, SKELETON)
