"""Remakes examples/devices: one recorded walk, as the devices of docs/devices.md would have logged it.

    python examples/make_device_logs.py [folder]

The head of brisk_walk.csv (x forward, y left, z up; the head by its left, up and forward) is written in the axes, units
and columns of each device. The axes are spelled out here by themselves, so that what the library reads can be held
against them.
"""

import sys
from pathlib import Path

import numpy as np
import roma
import torch

from motion_grpo.trajectory import default_T_device_cpf

EXAMPLES = Path(__file__).parent
Array = np.ndarray
Axes = tuple[str, str, str]
FORWARD_LEFT_UP = ("+x", "+y", "+z")
"""The world that the walk comes in: what +x, +y and +z point at, out of forward (x), left (y) and up (z)."""
RIGHT_UP_BACK, RIGHT_UP_FORWARD, LEFT_UP_FORWARD = ("-y", "+z", "-x"), ("-y", "+z", "+x"), ("+y", "+z", "+x")
"""Worlds of OpenXR (and SteamVR, WebXR, ARKit, visionOS), of Unity, and of Aria Digital Twin."""
HEAD_LEFT_UP_FORWARD = ("+x", "+y", "+z")
"""The CPF: what its axes point at, out of left (x), up (y) and forward (z)."""
HEAD_RIGHT_UP_BACK, HEAD_RIGHT_UP_FORWARD = ("-x", "+y", "-z"), ("-x", "+y", "+z")
HEAD_RIGHT_DOWN_FORWARD, HEAD_UP_RIGHT_FORWARD = ("-x", "-y", "+z"), ("+y", "-x", "+z")
"""Heads of OpenXR, of Unity, of cameras, and of EuRoC's inertial unit."""


def main(folder: Path) -> None:
    """Writes a file for every device."""
    rows = np.genfromtxt(EXAMPLES / "brisk_walk.csv", delimiter=",", names=True)
    times = rows["timestamp"]
    position = np.stack([rows[name] for name in ("x", "y", "z")], axis=1)
    quaternion = np.stack([rows[name] for name in ("qx", "qy", "qz", "qw")], axis=1)
    head = roma.unitquat_to_rotmat(torch.from_numpy(quaternion)).numpy()
    nanoseconds = [f"{round(time * 1e9) + 1_700_000_000_000_000_000}" for time in times]
    seconds = [f"{time:.6f}" for time in times]

    def poses(world: Axes, axes: Axes) -> tuple[Array, Array]:
        """Rotations (frames, 3, 3) and positions (frames, 3) in a system's axes."""
        return permutation(world) @ head @ permutation(axes).T, position @ permutation(world).T

    def write(name: str, header: str, columns: list, separator: str = ",") -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [separator.join(row) for row in zip(*columns, strict=True)]
        path.write_text("\n".join([header, *lines]) + "\n")

    openxr, unity = poses(RIGHT_UP_BACK, HEAD_RIGHT_UP_BACK), poses(RIGHT_UP_FORWARD, HEAD_RIGHT_UP_FORWARD)
    write("quest.csv", "timestamp_ns,x,y,z,qx,qy,qz,qw", [nanoseconds, *numbers(*openxr)])
    unity_names = "Timestamp,HeadPosX,HeadPosY,HeadPosZ,HeadRotX,HeadRotY,HeadRotZ,HeadRotW"
    write("unity.csv", unity_names, [seconds, *numbers(*unity)])
    write("arkit.csv", "time,tx,ty,tz,qx,qy,qz,qw", [seconds, *numbers(*openxr)])
    write("vision_pro.csv", "time,x,y,z,qx,qy,qz,qw", [seconds, *numbers(*openxr)])
    matrix = np.concatenate([openxr[0], openxr[1][:, :, None]], axis=2).reshape(-1, 12)
    entries = ",".join(f"m{row}{column}" for row in range(3) for column in range(4))
    write("steamvr.csv", f"time,{entries}", [seconds, *texts(matrix)])
    tum = poses(FORWARD_LEFT_UP, HEAD_RIGHT_DOWN_FORWARD)
    write("tum.txt", "# time tx ty tz qx qy qz qw", [seconds, *numbers(*tum)], " ")
    euroc = poses(FORWARD_LEFT_UP, HEAD_UP_RIGHT_FORWARD)
    euroc_names = [f"p_RS_R_{axis} [m]" for axis in "xyz"] + [f"q_RS_{axis} []" for axis in "wxyz"]
    x, y, z, qx, qy, qz, qw = numbers(*euroc)
    write("euroc.csv", ",".join(["#timestamp [ns]", *euroc_names]), [nanoseconds, x, y, z, qw, qx, qy, qz])
    write("plain.csv", "timestamp,x,y,z,qw,qx,qy,qz", [seconds, *(numbers(head, position)[k] for k in ORDER)])
    for name, device in (("aria_gen1", "gen1"), ("aria_gen2", "gen2")):
        R, p = on_device(head, position, device)
        start = p[0]  # MPS's world begins where the recording does
        write(f"{name}/closed_loop_trajectory.csv", *mps(times, R, p - start, (0.0, 0.0, -9.81)))
    R, p = on_device(*poses(LEFT_UP_FORWARD, HEAD_LEFT_UP_FORWARD), "gen1")
    write("adt/aria_trajectory.csv", *mps(times, R, p, (0.0, -9.81, 0.0)))


def permutation(axes: Axes) -> Array:
    """Takes (x, y, z) to three of them in another order and with other signs."""
    return np.array([[float(f"{axis[0]}1") * (axis[1] == name) for name in "xyz"] for axis in axes])


ORDER = (0, 1, 2, 6, 3, 4, 5)  # w first


def texts(values: Array) -> list[list[str]]:
    """Columns of an array as text."""
    return [[f"{value:.6f}" for value in column] for column in values.T]


def numbers(R: Array, p: Array) -> list[list[str]]:
    """Columns x y z qx qy qz qw."""
    quaternions = roma.rotmat_to_unitquat(torch.from_numpy(np.ascontiguousarray(R))).numpy()
    return texts(np.concatenate([p, quaternions], axis=1))


def on_device(R: Array, p: Array, device: str) -> tuple[Array, Array]:
    """Poses of Aria's device frame out of those of the CPF, by the extrinsic of the glasses' CAD model."""
    T_cpf_device = np.linalg.inv(default_T_device_cpf(device).numpy())
    return R @ T_cpf_device[:3, :3], p + R @ T_cpf_device[:3, 3]


def mps(times: Array, R: Array, p: Array, gravity: tuple[float, float, float]) -> tuple[str, list]:
    """Header and columns of an MPS trajectory."""
    pose = [f"t{axis}_world_device" for axis in "xyz"] + [f"q{axis}_world_device" for axis in "xyzw"]
    names = ["graph_uid", "tracking_timestamp_us", *pose, *(f"gravity_{axis}_world" for axis in "xyz"), "quality_score"]
    clock = [f"{round(time * 1e6) + 149_202_610}" for time in times]
    constant = [[f"{value:.6f}"] * len(times) for value in (*gravity, 1.0)]
    return ",".join(names), [["brisk-walk"] * len(times), clock, *numbers(R, p), *constant]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES / "devices")
