"""Where head poses come from: a recording in its own time, OSC over UDP, a headset by OpenXR."""

import ctypes
import logging
import math
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.extras import extra
from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.streaming.frames import Wrists
from motion_grpo.trajectory import HandObservations, HeadTrajectory
from motion_grpo.trajectory.checks import pose_matrix
from motion_grpo.trajectory.conventions import CONVENTIONS, Convention

LOGGER = logging.getLogger("motion_grpo.live")
OSC_PORT = 39540
_LATE = 0.1
"""Seconds that a recording may be behind before poses are skipped."""
_LONGEST_SKIP = 0.5
"""Seconds that are skipped at once, at most."""
_WAIT = 0.1
"""Seconds after which a source that has nothing is asked whether it goes on."""
_MOST_BYTES = 65_536
_OPENXR_RATE = 90.0


class HeadSample(NamedTuple):
    """One pose of the head, and of the wrists if they were seen."""

    T_world_cpf: Float64[Tensor, "4 4"]
    timestamp: float
    """Seconds, on the source's clock."""
    hands: Wrists | None = None


@runtime_checkable
class Source(Protocol):
    """Gives poses as they come, and None now and then while there are none, so that nobody waits for ever."""

    floor_height: float
    """z of the floor, meters."""

    def __iter__(self) -> Iterator[HeadSample | None]:
        """Poses, newest last."""
        ...

    def close(self) -> None:
        """Ends; the port, or the headset, is free again."""


class RecordingSource:
    """A head trajectory, played.

    Args:
        trajectory: what is played.
        hands: wrists that were seen, one observation a pose.
        in_real_time: wait for each pose's time, and skip those for which it is too late; else as fast as it goes.
    """

    def __init__(
        self, trajectory: HeadTrajectory, hands: HandObservations | None = None, *, in_real_time: bool = True
    ) -> None:
        self._trajectory = trajectory
        self._times = trajectory.timestamps.tolist()
        self._hands = None if hands is None else hands.along(trajectory)
        self._in_real_time = in_real_time
        self.floor_height = float(trajectory.floor_height)

    def __iter__(self) -> Iterator[HeadSample]:
        """Poses at their times."""
        began, before = time.monotonic() - self._times[0], self._times[0]
        for number, due in enumerate(self._times):
            if self._in_real_time:
                ahead = due - (time.monotonic() - began)
                if ahead < -_LATE and due - before < _LONGEST_SKIP and number < len(self._times) - 1:
                    continue
                time.sleep(max(0.0, ahead))
                began += max(0.0, -ahead - _LATE)  # who is that slow sees it in slow motion
            before = due
            R, p = self._trajectory.R_world_cpf[number], self._trajectory.p_world_cpf[number]
            yield HeadSample(pose_matrix(R.double(), p.double()), due, self._wrists(number))

    def _wrists(self, number: int) -> Wrists | None:
        if self._hands is None:
            return None
        known = zip(self._hands.R_world_wrist[number], self._hands.p_world_wrist[number], strict=True)
        poses = [pose_matrix(R.double(), p.double()) for R, p in known]
        left, right = (T if seen else None for T, seen in zip(poses, self._hands.visible[number].tolist(), strict=True))
        return left, right

    def close(self) -> None:
        """Nothing has to be ended."""


class OscSource:
    """Head poses that arrive as OSC over UDP; of several that wait, the newest is given.

    - ``/VMC/Ext/Hmd/Pos``, serial x y z qx qy qz qw: what VirtualMotionCapture and others send, in Unity's axes.
    - ``/motion_grpo/head``, x y z qw qx qy qz and, if it is known, the time in seconds: in ``convention``'s axes.
    - ``/motion_grpo/left_wrist`` and ``right_wrist``, likewise: T_world_wrist in the library's own axes.

    Whatever else comes, malformed or not for us, is left out and counted.

    Args:
        port: to listen at; 0 takes a free one.
        host: address to listen at; this machine alone by default.
        convention: axes of ``/motion_grpo/head``.
        floor_height: z of the floor, meters.

    Raises:
        OSError: the port is in use.
    """

    def __init__(
        self,
        port: int = OSC_PORT,
        host: str = "127.0.0.1",
        convention: Convention = CONVENTIONS["cpf"],
        floor_height: float = 0.0,
    ) -> None:
        with extra("live"):
            from pythonosc.osc_packet import OscPacket
        self._parse, self._convention, self.floor_height = OscPacket, convention, floor_height
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            reason = f"UDP port {port} of {host} is in use or not allowed ({error.strerror})"
            raise OSError(f"{reason}; give another.") from error
        self.port = self._socket.getsockname()[1]
        self._socket.settimeout(_WAIT)
        self.left_out = 0
        """Packets and messages that could not be read."""
        self._wrists: list[tuple[float, Tensor] | None] = [None, None]
        self._is_open = True

    def __iter__(self) -> Iterator[HeadSample | None]:
        """Poses as they arrive, None after a while without one."""
        while self._is_open:
            newest = None
            try:
                newest = self._take(self._socket.recv(_MOST_BYTES), newest)
                self._socket.setblocking(False)
                while True:
                    newest = self._take(self._socket.recv(_MOST_BYTES), newest)
            except (TimeoutError, BlockingIOError):
                pass
            except OSError:  # closed meanwhile, or a complaint of the network about what somebody sent
                if not self._is_open:
                    return
            self._socket.settimeout(_WAIT)
            yield newest

    def close(self) -> None:
        """Frees the port."""
        self._is_open = False
        self._socket.close()

    def _take(self, data: bytes, newest: HeadSample | None) -> HeadSample | None:
        try:
            messages = [timed.message for timed in self._parse(data).messages]
        except Exception as error:  # python-osc has many ways to say that a packet is malformed
            self._leave_out(f"a packet of {len(data)} bytes that is no OSC ({type(error).__name__})")
            return newest
        for message in messages:
            try:
                newest = self._read(message.address, message.params) or newest
            except (ValueError, TypeError) as error:
                self._leave_out(f"{message.address} with {message.params!r:.80}: {error}")
        return newest

    def _read(self, address: str, values: list) -> HeadSample | None:
        now = time.monotonic()
        if address == "/VMC/Ext/Hmd/Pos":
            x, y, z, qx, qy, qz, qw = _numbers(values[1:], 7)
            T, timestamp = _pose([x, y, z], [qw, qx, qy, qz], CONVENTIONS["unity"]), now
        elif address == "/motion_grpo/head":
            numbers = _numbers(values, 7, 8)
            T = _pose(numbers[:3], numbers[3:7], self._convention)
            timestamp = numbers[7] if len(numbers) == 8 else now
        elif address in ("/motion_grpo/left_wrist", "/motion_grpo/right_wrist"):
            numbers = _numbers(values, 7)
            side = int(address.endswith("right_wrist"))
            self._wrists[side] = now, _pose(numbers[:3], numbers[3:], CONVENTIONS["cpf"])
            return None
        else:
            return None
        left, right = (wrist[1] if wrist is not None and now - wrist[0] < _WAIT else None for wrist in self._wrists)
        return HeadSample(T, timestamp, (left, right))

    def _leave_out(self, what: str) -> None:
        self.left_out += 1
        if math.log10(self.left_out).is_integer():
            LOGGER.warning("Left out, %d by now: %s.", self.left_out, what)


class OpenXrSource:
    """The head of a headset whose OpenXR runtime lets programs look on without drawing (XR_MND_headless).

    Monado and WiVRn do. Poses are those of VIEW in STAGE space, whose floor is at 0.

    Raises:
        ModuleNotFoundError: pyopenxr is not installed.
        OSError: no runtime, no headset, or a runtime without that extension.
    """

    floor_height = 0.0

    def __init__(self) -> None:
        with extra("live"):
            import xr
        self._xr: Any = xr
        try:
            extensions = ["XR_MND_headless", "XR_KHR_convert_timespec_time"]
            self._instance = xr.create_instance(xr.InstanceCreateInfo(enabled_extension_names=extensions))
            system = xr.get_system(self._instance, xr.SystemGetInfo(xr.FormFactor.HEAD_MOUNTED_DISPLAY))
            self._session = xr.create_session(self._instance, xr.SessionCreateInfo(system_id=system))
            stage, view = (
                xr.create_reference_space(self._session, xr.ReferenceSpaceCreateInfo(kind))
                for kind in (xr.ReferenceSpaceType.STAGE, xr.ReferenceSpaceType.VIEW)
            )
        except xr.XrException as error:
            raise OSError(
                f"OpenXR gives no head poses here ({str(error).rstrip('.')}); start a runtime with XR_MND_headless "
                "(Monado, WiVRn) and put the headset on, or send poses by OSC."
            ) from error
        self._stage, self._view, self._is_open = stage, view, True

    def __iter__(self) -> Iterator[HeadSample | None]:
        """Poses at 90 Hz, None while the head is not tracked."""
        xr = self._xr
        tracked = xr.SpaceLocationFlags.ORIENTATION_VALID_BIT | xr.SpaceLocationFlags.POSITION_VALID_BIT
        while self._is_open:
            self._follow_events()
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            try:
                location = xr.locate_space(self._view, self._stage, self._xr_time(now))
            except xr.XrException as error:
                LOGGER.warning("OpenXR: %s.", error)
                location = None
            if location is None or location.location_flags & tracked != tracked:
                yield None
            else:
                q, p = location.pose.orientation, location.pose.position
                T = _pose([p.x, p.y, p.z], [q.w, q.x, q.y, q.z], CONVENTIONS["openxr"])
                yield HeadSample(T, now * 1e-9)
            time.sleep(1 / _OPENXR_RATE)

    def close(self) -> None:
        """Ends the session."""
        self._is_open = False
        self._xr.destroy_session(self._session)
        self._xr.destroy_instance(self._instance)

    def _xr_time(self, nanoseconds: int) -> Any:
        parts = self._xr.timespec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        return self._xr.convert_timespec_time_to_time_khr(self._instance, parts)

    def _follow_events(self) -> None:
        """Begins and ends the session when the runtime says so."""
        xr = self._xr
        while True:
            try:
                event = xr.poll_event(self._instance)
            except xr.EventUnavailable:
                return
            if xr.StructureType(event.type) != xr.StructureType.EVENT_DATA_SESSION_STATE_CHANGED:
                continue
            state = ctypes.cast(ctypes.byref(event), ctypes.POINTER(xr.EventDataSessionStateChanged)).contents.state
            if state == xr.SessionState.READY:
                xr.begin_session(self._session, xr.SessionBeginInfo(xr.ViewConfigurationType.PRIMARY_STEREO))
            elif state in (xr.SessionState.STOPPING, xr.SessionState.EXITING, xr.SessionState.LOSS_PENDING):
                self._is_open = False


def _numbers(values: list, *counts: int) -> list[float]:
    if len(values) not in counts or not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"it must have {' or '.join(map(str, counts))} numbers")
    if not np.isfinite(values).all():
        raise ValueError("its numbers must be finite")
    return [float(value) for value in values]


def _pose(position: list[float], wxyz: list[float], convention: Convention) -> Float64[Tensor, "4 4"]:
    """The head's pose in the library's axes.

    Raises:
        ValueError: a quaternion that is far from unit length.
    """
    q, p = (torch.tensor([values], dtype=torch.float64) for values in (wxyz, position))
    if abs(float(q.norm()) - 1) > 0.01:
        raise ValueError(f"its quaternion must have unit length, got {float(q.norm()):.3g}")
    R, p = convention.convert(wxyz_to_matrix(q), p)
    return pose_matrix(R[0], p[0])
