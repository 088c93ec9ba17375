"""Reads the motion capture clips of the package envpool-assets and poses MuJoCo's CMU humanoid with them.

The clips are takes of the CMU Graphics Lab Motion Capture Database that the authors of dm_control fitted to their CMU
humanoid (dm_control, locomotion/mocap; Apache-2.0). Needs ``pip install "motion-grpo[examples]"``.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import envpool_assets
import mujoco
import numpy as np
import roma
import torch
from jaxtyping import Float
from scipy.signal import medfilt
from torch import Tensor

ASSETS = Path(envpool_assets.__file__).parent / "mujoco" / "locomotion" / "assets_dm_control"
# dm_control enlarges the 2020 humanoid by this factor after loading its XML.
ENLARGED = {"2019": 1.0, "2020": 1.2}
# Columns of the generalized positions: the toes' hinges, which jump by up to 70 degrees for two or three frames.
TOE_HINGES = (13, 20)


@dataclass(frozen=True)
class HumanoidMotion:
    """The posed humanoid."""

    bodies: tuple[str, ...]
    R_world_body: Float[Tensor, "frames bodies 3 3"]
    p_world_body: Float[Tensor, "frames bodies 3"]
    """Meters."""
    joint_angles: dict[str, Float[Tensor, " frames"]]
    """Radians, by joint name."""

    def R(self, body: str) -> Float[Tensor, "frames 3 3"]:
        return self.R_world_body[:, self.bodies.index(body)]

    def p(self, body: str) -> Float[Tensor, "frames 3"]:
        return self.p_world_body[:, self.bodies.index(body)]

    def resized(self, factor: float) -> "HumanoidMotion":
        """A humanoid of another size on the same path: only the bodies' distances from the root change."""
        root = self.p_world_body[:, :1]
        return HumanoidMotion(
            self.bodies, self.R_world_body, root + factor * (self.p_world_body - root), self.joint_angles
        )

    def levelled(self) -> "HumanoidMotion":
        """The motion turned about the world's origin until the planted toes lie in a horizontal plane.

        Takes a path that covers some area: the plane is fitted to the toes of the slower foot of every frame.
        """
        toes = torch.stack([self.p("ltoes"), self.p("rtoes")], dim=1)
        slower = torch.gradient(toes, dim=0)[0].norm(dim=-1).argmin(dim=1)
        planted = toes[torch.arange(len(toes)), slower]
        plane = torch.cat([planted[:, :2], torch.ones_like(planted[:, :1])], dim=1)
        slope = torch.linalg.lstsq(plane, planted[:, 2:]).solution.flatten()[:2]
        normal = torch.cat([-slope, torch.ones_like(slope[:1])])
        normal = normal / normal.norm()
        axis = torch.stack([normal[1], -normal[0], torch.zeros_like(normal[0])])  # normal x up
        turn = roma.rotvec_to_rotmat(axis / axis.norm() * normal[2].acos())
        return HumanoidMotion(self.bodies, turn @ self.R_world_body, self.p_world_body @ turn.mT, self.joint_angles)


def read_clip(clip_id: str, model: str) -> tuple[float, dict[str, np.ndarray]]:
    """Time step in seconds and the named (frames, width) float32 arrays of one clip.

    A file is little-endian: "EPMOCAP1", the number of clips, then for each clip its name, number of frames (uint32),
    time step (float64), number of arrays, and for each array its name, width and frames x width float32. A name is its
    length (uint32) and its letters.
    """
    path = ASSETS / f"mocap_{model}.bin"
    data, at = path.read_bytes(), 8
    if data[:8] != b"EPMOCAP1":
        raise ValueError(f"{path} is not a mocap file of envpool-assets: it does not start with EPMOCAP1.")

    def take(layout: str) -> tuple:
        nonlocal at
        at += struct.calcsize("<" + layout)
        return struct.unpack_from("<" + layout, data, at - struct.calcsize("<" + layout))

    def take_name() -> str:
        (length,) = take("I")
        return take(f"{length}s")[0].decode()

    (num_clips,) = take("I")
    for _ in range(num_clips):
        name, (frames, step, num_arrays) = take_name(), take("IdI")
        arrays = {}
        for _ in range(num_arrays):
            key, (width,) = take_name(), take("I")
            arrays[key] = np.frombuffer(data, "<f4", frames * width, at).reshape(frames, width)
            at += 4 * frames * width
        if name == clip_id:
            return step, arrays
    raise ValueError(f"{path} has no clip {clip_id}; mocap.json beside it lists those it has.")


def pose_humanoid(model: str, qpos: np.ndarray) -> HumanoidMotion:
    """Kinematics of (frames, 7 + 56) generalized positions: root position, root quaternion (wxyz), joint angles."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / f"locomotion/walkers/assets/humanoid_CMU_V{model}.xml"))
    spec.body("root").add_freejoint()
    humanoid = spec.compile()
    state = mujoco.MjData(humanoid)
    R, p = [], []
    for frame in qpos:
        state.qpos[:] = frame
        mujoco.mj_kinematics(humanoid, state)
        R.append(state.xmat[1:].reshape(-1, 3, 3).copy())  # body 0 is the world
        p.append(state.xpos[1:].copy())
    angles = {humanoid.joint(j).name: torch.from_numpy(qpos[:, 6 + j].copy()) for j in range(1, humanoid.njnt)}
    bodies = tuple(humanoid.body(b).name for b in range(1, humanoid.nbody))
    return HumanoidMotion(bodies, torch.from_numpy(np.stack(R)), torch.from_numpy(np.stack(p)), angles)


def zero_pose(model: str) -> HumanoidMotion:
    """One frame: y up, facing +z, left at +x, arms out, legs straight and splayed by 20 degrees."""
    return pose_humanoid(model, np.array([[0, 0, 0, 1, 0, 0, 0] + [0] * 56], dtype=np.float64))


def load_motion(clip_id: str, model: str, start: float, stop: float, fps: float) -> HumanoidMotion:
    """The part of a clip between two times (seconds) in a z-up world, resampled by timestamp.

    Rotations are interpolated on the sphere, the rest linearly. The root's path is the subject's own in meters; the
    bodies have the size of the humanoid's XML, which is one for all subjects.
    """
    step, arrays = read_clip(clip_id, model)
    qpos = np.concatenate([arrays["position"], arrays["quaternion"], arrays["joints"]], axis=1).astype(np.float64)
    for column in TOE_HINGES:
        qpos[:, column] = medfilt(qpos[:, column], 7)
    motion = pose_humanoid(model, qpos)
    # The clip stores where its bodies were, the root left out: agreeing legs prove layout, joint order and model.
    stored = torch.from_numpy(arrays["body_positions"].reshape(len(qpos), -1, 3)[:, :10].astype(np.float64))
    if (motion.resized(ENLARGED[model]).p_world_body[:, 1:11] - stored).abs().max() > 1e-3:
        raise ValueError(f"{clip_id} does not fit humanoid_CMU_V{model}.xml: stored and computed legs differ.")
    times = np.arange(start, min(stop, step * (len(qpos) - 1)) + 1e-9, 1 / fps) / step
    before = torch.from_numpy(np.minimum(times.astype(int), len(qpos) - 2))
    weight = torch.from_numpy(times) - before
    quaternions = roma.rotmat_to_unitquat(motion.R_world_body)
    between = [
        roma.unitquat_slerp(quaternions[b], quaternions[b + 1], w, shortest_arc=True)
        for b, w in zip(before, weight, strict=True)
    ]

    def lerp(x):
        return torch.lerp(x[before], x[before + 1], weight.reshape(-1, *[1] * (x.ndim - 1)))

    angles = {name: lerp(angle) for name, angle in motion.joint_angles.items()}
    return HumanoidMotion(
        motion.bodies, roma.unitquat_to_rotmat(torch.stack(between)), lerp(motion.p_world_body), angles
    )
