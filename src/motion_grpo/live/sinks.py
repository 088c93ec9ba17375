"""Where bodies go to while they are recovered: avatars by OSC, anybody by WebSocket, a page, a file."""

import json
import threading
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from motion_grpo.body import JOINT_NAMES, PosedBody, Skeleton, cpf_of
from motion_grpo.extras import extra
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.live.unity import avatar_pose, euler_degrees, unity_points, unity_rotations, xyzw
from motion_grpo.motion import check_output_path
from motion_grpo.streaming import BodyPose, motion_of

VMC_PORT, VRCHAT_PORT, WEBSOCKET_PORT = 39539, 9000, 8765
VRCHAT_TRACKERS = (
    ("hip", 0), ("chest", 9), ("left foot", 7), ("right foot", 8),
    ("left knee", 4), ("right knee", 5), ("left elbow", 18), ("right elbow", 19),
)  # fmt: skip
"""What the trackers 1 to 8 are, and the SMPL-H joint of each."""


@runtime_checkable
class Sink(Protocol):
    """Takes every body; raises OSError where it cannot be reached, and is asked again with the next one."""

    def send(self, pose: BodyPose) -> None:
        """Sends or keeps one body."""

    def close(self) -> None:
        """Ends; nothing is sent any more."""


class VmcSink:
    """Virtual Motion Capture's protocol over OSC (protocol.vmc.info): VSeeFace, Warudo, VirtualMotionCapture, VNyan.

    A body is one bundle: ``/VMC/Ext/OK``, ``/VMC/Ext/T``, ``/VMC/Ext/Root/Pos``, which is the identity, and
    ``/VMC/Ext/Bone/Pos`` for 22 bones, rotations relative to the parent bone, for an avatar in its T-pose.
    """

    def __init__(self, host: str, port: int, skeleton: Skeleton, floor_height: float = 0.0) -> None:
        self._client = _osc_client(host, port)
        self._skeleton, self._floor = skeleton, floor_height
        self._began: float | None = None

    def send(self, pose: BodyPose) -> None:
        """Sends one body."""
        avatar = avatar_pose(pose, self._skeleton, self._floor)
        if self._began is None:
            self._began = pose.timestamp
        messages = [
            ("/VMC/Ext/OK", [1]),
            ("/VMC/Ext/T", [pose.timestamp - self._began]),
            ("/VMC/Ext/Root/Pos", ["root", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        ]
        values = torch.cat([avatar.local_positions, xyzw(avatar.local_rotmats)], dim=-1).tolist()
        messages += [("/VMC/Ext/Bone/Pos", [bone, *row]) for bone, row in zip(avatar.bones, values, strict=True)]
        self._client.send(_bundle(messages))

    def close(self) -> None:
        """Nothing has to be ended: UDP has no connection."""


class VrchatSink:
    """VRChat's OSC trackers (docs.vrchat.com, "OSC Trackers"): hip, chest, feet, knees and elbows, and the head.

    ``/tracking/trackers/1..8/position`` and ``/rotation`` in Unity's axes, meters and degrees; the head's are what
    VRChat brings the two worlds together by.
    """

    def __init__(self, host: str, port: int, skeleton: Skeleton, floor_height: float = 0.0) -> None:
        self._client = _osc_client(host, port)
        self._skeleton, self._floor = skeleton, floor_height

    def send(self, pose: BodyPose) -> None:
        """Sends one body."""
        joints = [joint for _, joint in VRCHAT_TRACKERS]
        R_head, p_head = cpf_of(PosedBody(pose.world_rotmats, pose.joints), self._skeleton.cpf_offset(pose.betas))
        rotmats = torch.cat([pose.world_rotmats[joints], R_head[None]])
        points = torch.cat([pose.joints[joints], p_head[None]])
        positions = unity_points(points, self._floor).tolist()
        angles = euler_degrees(unity_rotations(rotmats)).tolist()
        names = [*map(str, range(1, len(joints) + 1)), "head"]
        messages = []
        for name, position, turn in zip(names, positions, angles, strict=True):
            messages.append((f"/tracking/trackers/{name}/position", position))
            messages.append((f"/tracking/trackers/{name}/rotation", turn))
        self._client.send(_bundle(messages))

    def close(self) -> None:
        """Nothing has to be ended: UDP has no connection."""


class WebSocketSink:
    """Bodies as JSON to whoever connects; who is slow misses some of them.

    ``{"timestamp", "joint_names", "joints": 22 x 3 (meters, z up), "rotations": 22 x 4 (wxyz, the root's in the world,
    others relative to their parents), "betas": 16, "contacts": 21}``.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, host: str, port: int) -> None:
        with extra("live"):
            from websockets.sync.server import serve
        self._news, self._message, self._number, self._open = threading.Condition(), "", 0, True
        try:
            self._server = serve(self._talk, host, port)
        except OSError as error:
            reason = f"port {port} of {host} is in use or not allowed ({error.strerror})"
            raise OSError(f"{reason}; give another.") from error
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def send(self, pose: BodyPose) -> None:
        """Hands one body to every client."""
        body = {
            "timestamp": pose.timestamp,
            "joint_names": JOINT_NAMES[: len(pose.joints)],
            "joints": _rounded(pose.joints, 5),
            "rotations": _rounded(matrix_to_wxyz(pose.local_rotmats), 6),
            "betas": _rounded(pose.betas, 4),
            "contacts": _rounded(pose.contacts, 3),
        }
        with self._news:
            self._message, self._number = json.dumps(body, separators=(",", ":")), self._number + 1
            self._news.notify_all()

    def close(self) -> None:
        """Lets every client go."""
        with self._news:
            self._open = False
            self._news.notify_all()
        self._server.shutdown()

    def _talk(self, connection: Any) -> None:
        """Of one client, in a thread of its own, which ends when the client is gone."""
        seen = self._number
        while True:
            with self._news:
                self._news.wait_for(lambda seen=seen: self._number > seen or not self._open)
                if not self._open:
                    return
                message, seen = self._message, self._number
            connection.send(message)


class ViewerSink:
    """A page that shows the body (viser).

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, port: int, skeleton: Skeleton, floor_height: float = 0.0) -> None:
        with extra("view"):
            from motion_grpo.viz.live_page import LivePage
        self._page = LivePage(port)
        self.url = self._page.url
        self._skeleton, self._floor = skeleton, floor_height

    def send(self, pose: BodyPose) -> None:
        """Shows one body."""
        self._page.show(motion_of([pose], self._skeleton, self._floor))

    def close(self) -> None:
        """Ends the page."""
        self._page.stop()


class RecordingSink:
    """Keeps every body and writes a motion at the end; the suffix says how (``.npz``, ``.bvh``, ...).

    Memory grows with it: 90 MB an hour.

    Raises:
        ValueError: an unknown suffix.
        OSError: the folder does not exist or cannot be written to.
    """

    def __init__(self, path: Path, skeleton: Skeleton, floor_height: float = 0.0) -> None:
        self.path = check_output_path(path)
        self._skeleton, self._floor = skeleton, floor_height
        self._poses: list[BodyPose] = []

    def send(self, pose: BodyPose) -> None:
        """Keeps one body."""
        self._poses.append(pose)

    def close(self) -> None:
        """Writes the file, if there was a body."""
        if self._poses:
            motion_of(self._poses, self._skeleton, self._floor).save(self.path)


def _osc_client(host: str, port: int) -> Any:
    with extra("live"):
        from pythonosc.udp_client import UDPClient
    try:
        return UDPClient(host, port)
    except OSError as error:
        raise OSError(f"{host} is no address that OSC can be sent to ({error.strerror}).") from error


def _bundle(messages: list[tuple[str, list]]) -> Any:
    from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
    from pythonosc.osc_message_builder import OscMessageBuilder

    bundle = OscBundleBuilder(IMMEDIATELY)
    for address, values in messages:
        message = OscMessageBuilder(address)
        for value in values:
            message.add_arg(value)
        bundle.add_content(message.build())
    return bundle.build()


def _rounded(values: torch.Tensor, digits: int) -> list:
    return torch.round(values.double(), decimals=digits).tolist()
