"""What the viewer shows: bodies, head paths, contacts, floor and points in a viser scene, moment by moment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import viser
from jaxtyping import Float, Float64, Int64
from matplotlib.colors import to_rgb
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, NUM_JOINTS, PARENTS, PosedBody, cpf_of
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.motion import FPS, Motion
from motion_grpo.timing import nearest
from motion_grpo.trajectory import HeadTrajectory
from motion_grpo.viz.figures import COLORS
from motion_grpo.viz.mesh import MANNEQUIN_BODIES, shown_body, skin_of, without_fingers
from motion_grpo.viz.strip import joint_errors, walking_direction
from motion_grpo.viz.timing import frames_at, shared_time, times_at

TRUTH = "truth"
"""Name of the motion that the others are compared with."""
MAX_MOTIONS = len(COLORS)
_TRUTH_COLOR = COLORS[1]
_CONTACT_COLOR, _TRAJECTORY_COLOR, _POINT_COLOR = (230, 159, 0), (25, 25, 25), (140, 140, 153)
_DISC, _DISC_SIDES = 0.12, 24  # meters
_SPACING = 1.5  # meters between bodies that stand side by side
_LABEL_OVER_EYES, _LABEL_STEP = 0.3, 0.13  # meters; labels of bodies in one place stand over each other
_MAX_POINTS = 100_000
# viser's cameras look along +z with x right and y down; the CPF has x left and y up.
_CPF_TO_CAMERA = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


@dataclass(frozen=True, eq=False)
class _Actor:
    """One motion in the scene, with its frame for each moment and the handles that are moved."""

    name: str
    motion: Motion
    frames: Int64[np.ndarray, " moments"]
    joints: Float64[np.ndarray, "frames joints 3"]
    wxyzs: Float64[np.ndarray, "frames joints 4"]
    eyes: Float64[np.ndarray, "frames 3"]
    errors: Float64[np.ndarray, " moments"] | None
    """Mean distance of 22 joints from the truth's, mm."""
    root: viser.FrameHandle
    skin: viser.MeshSkinnedHandle | viser.LineSegmentsHandle
    contacts: viser.BatchedMeshHandle
    label: viser.LabelHandle


class Stage:
    """Motions of one recording, with their floors at z = 0, on one timeline of 30 moments a second."""

    def __init__(
        self,
        server: viser.ViserServer,
        motions: Mapping[str, Motion],
        *,
        trajectory: HeadTrajectory | None = None,
        points: Float64[np.ndarray, "points 3"] | None = None,
        model_path: str | Path | None = None,
    ) -> None:
        """Fills the scene.

        Args:
            server: whose scene is filled.
            motions: name to motion, one to six; the one named ``truth`` is what the others' errors refer to.
            trajectory: head trajectory that the motions were recovered from; its path and its frustum are shown.
            points: of the room, in the trajectory's world, meters.
            model_path: licensed SMPL-H or SMPL-X file whose surface is shown; the mannequin when None. Bodies that
                have neither are stick figures.

        Raises:
            ValueError: no motion or too many; no time that all share; betas of another body than the file's.
        """
        if not 1 <= len(motions) <= MAX_MOTIONS:
            raise ValueError(f"the viewer shows 1 to {MAX_MOTIONS} motions, and got {len(motions)}.")
        start, end = shared_time(motions)
        self.times = times_at(start, end, FPS)
        self._scene = server.scene
        # Cascaded shadows take most of a frame on machines without a GPU.
        self._scene.configure_default_lights(cast_shadow=False)
        self._start = start
        lead = next(iter(motions.values()))
        self._direction = walking_direction(lead)
        others = iter(color for color in COLORS if color != _TRUTH_COLOR)
        truth = motions.get(TRUTH)
        self._actors = [
            self._add_motion(
                name,
                motion,
                _TRUTH_COLOR if name == TRUTH else next(others),
                truth if name != TRUTH else None,
                model_path,
            )
            for name, motion in motions.items()
        ]
        floor = lead.floor_height if trajectory is None else trajectory.floor_height
        self._head = None if trajectory is None else self._add_trajectory(trajectory)
        if points is not None:
            kept = points[:: max(1, len(points) // _MAX_POINTS)] - (0.0, 0.0, floor)
            self._scene.add_point_cloud("/points", kept.astype(np.float32), _POINT_COLOR, point_size=0.012)
        grid = {"cell_color": (225, 225, 225), "section_color": (200, 200, 200), "section_thickness": 0.5}
        self._scene.add_grid("/floor", infinite_grid=True, fade_distance=25.0, cell_thickness=0.5, **grid)
        self._place_camera(server)
        self.show(0)

    @property
    def names(self) -> list[str]:
        """The motions, in order."""
        return [actor.name for actor in self._actors]

    def show(self, moment: int) -> None:
        """Moves everything to one moment of the timeline."""
        for place, actor in enumerate(self._actors):
            frame = int(actor.frames[moment])
            if isinstance(actor.skin, viser.MeshSkinnedHandle):
                for bone, wxyz, position in zip(actor.skin.bones, actor.wxyzs[frame], actor.joints[frame], strict=True):
                    bone.wxyz, bone.position = wxyz, position
            else:
                actor.skin.points = _bones(actor.joints[frame])
            touching = actor.motion.contacts[frame].numpy() > 0.5
            ground = actor.joints[frame, 1:NUM_BODY_AND_ROOT] * (1, 1, 0) + (0, 0, 0.004)
            actor.contacts.batched_positions = ground.astype(np.float32)
            actor.contacts.batched_scales = np.where(touching, 1.0, 1e-4).astype(np.float32)
            actor.label.position = actor.eyes[frame] + (0, 0, _LABEL_OVER_EYES + place * _LABEL_STEP)
            actor.label.text = f"{actor.name}: {self._numbers(actor, moment)}"
        if self._head is not None:
            trajectory, poses, frustum = self._head
            frustum.wxyz, frustum.position = _frustum_pose(trajectory, int(poses[moment]))

    def put(self, name: str, motion: Motion) -> None:
        """Puts another motion of the same body and length in the place of one that is shown, as a stream does."""
        place = self.names.index(name)
        motion = motion.above_floor()
        body, known = shown_body(motion), motion.num_known_joints
        self._actors[place] = replace(
            self._actors[place],
            motion=motion,
            joints=body.joints[:, :known].double().numpy(),
            wxyzs=_wxyz(body.rotmats[:, :known]),
            eyes=cpf_of(body, motion.body.cpf_offset(motion.betas))[1].double().numpy(),
        )
        self.show(0)

    def focus(self, moment: int) -> Float64[np.ndarray, "3"]:
        """Where the first body's pelvis is, meters; what a camera follows."""
        lead = self._actors[0]
        return lead.joints[lead.frames[moment], 0] + np.asarray(lead.root.position)

    def read_out(self, moment: int) -> str:
        """Time, heights of eyes and errors, as Markdown."""
        lines = [f"- {actor.name}: {self._numbers(actor, moment)}" for actor in self._actors]
        return "\n".join([f"**{self.times[moment] - self._start:.2f} s** (frame {moment})", "", *lines])

    def arrange(self, side_by_side: bool) -> None:
        """Puts the bodies side by side, across the walking direction, or where they are."""
        across = np.array([-self._direction[1], self._direction[0], 0.0])
        for place, actor in enumerate(self._actors):
            actor.root.position = place * _SPACING * across if side_by_side else np.zeros(3)

    def set_visible(self, name: str, visible: bool) -> None:
        """Shows or hides one motion."""
        next(actor for actor in self._actors if actor.name == name).root.visible = visible

    def _numbers(self, actor: _Actor, moment: int) -> str:
        height = f"eyes at {actor.eyes[actor.frames[moment], 2]:.2f} m"
        return height if actor.errors is None else f"{height}, error {actor.errors[moment]:.0f} mm"

    def _add_motion(
        self, name: str, motion: Motion, color: str, truth: Motion | None, model_path: str | Path | None
    ) -> _Actor:
        errors = None
        if truth is not None:
            found = joint_errors(motion, truth, self.times[0], self.times[-1])
            errors = np.interp(self.times - self._start, found[:, 0], found[:, 1])
        motion = motion.above_floor()
        path = f"/motions/{name}"
        root = self._scene.add_frame(path, show_axes=False)
        red, green, blue = (round(255 * (0.75 * c + 0.2)) for c in to_rgb(color))
        rgb = (red, green, blue)
        if model_path is None and motion.body.name not in MANNEQUIN_BODIES:
            body = shown_body(motion)
            skin = self._scene.add_line_segments(f"{path}/body", _bones(body.joints[0].numpy()), rgb, thickness=0.03)
        else:
            body, skin = self._add_skin(f"{path}/body", motion, rgb, model_path)
        eyes = cpf_of(body, motion.body.cpf_offset(motion.betas))[1].double().numpy()
        trail = np.stack([eyes[:-1], eyes[1:]], axis=1)
        if len(trail):
            self._scene.add_line_segments(f"{path}/head path", trail.astype(np.float32), rgb, thickness=0.008)
        return _Actor(
            name=name,
            motion=motion,
            frames=frames_at(motion, self.times),
            joints=body.joints[:, : motion.num_known_joints].double().numpy(),
            wxyzs=_wxyz(body.rotmats[:, : motion.num_known_joints]),
            eyes=eyes,
            errors=errors,
            root=root,
            skin=skin,
            contacts=self._add_contacts(f"{path}/contacts"),
            label=self._scene.add_label(f"{path}/label", name, anchor="bottom-center"),
        )

    def _add_skin(
        self, path: str, motion: Motion, rgb: tuple[int, int, int], model_path: str | Path | None
    ) -> tuple[PosedBody, viser.MeshSkinnedHandle]:
        skin = skin_of(motion, model_path)
        body = shown_body(motion, skin.rest_joints)
        count = NUM_JOINTS
        if motion.hand_rotmats is None:
            skin, count = without_fingers(skin, body), NUM_BODY_AND_ROOT
        handle = self._scene.add_mesh_skinned(
            path,
            skin.vertices.numpy().astype(np.float32),
            skin.faces.numpy(),
            bone_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
            bone_positions=skin.rest_joints[:count].numpy(),
            skin_weights=skin.weights[:, :count].numpy(),
            color=rgb,
        )
        return body, handle

    def _add_contacts(self, path: str) -> viser.BatchedMeshHandle:
        angle = np.linspace(0, 2 * np.pi, _DISC_SIDES, endpoint=False)
        rim = _DISC * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
        ring = np.arange(_DISC_SIDES)
        faces = np.stack([np.full(_DISC_SIDES, _DISC_SIDES), ring, (ring + 1) % _DISC_SIDES], axis=1)
        return self._scene.add_batched_meshes_simple(
            path,
            np.concatenate([rim, np.zeros((1, 3))]),
            faces,
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (NUM_BODY_AND_ROOT - 1, 1)),
            batched_positions=np.zeros((NUM_BODY_AND_ROOT - 1, 3)),
            batched_scales=np.full(NUM_BODY_AND_ROOT - 1, 1e-4),
            batched_colors=_CONTACT_COLOR,
            lod="off",
            side="double",
            cast_shadow=False,
            receive_shadow=False,
        )

    def _add_trajectory(self, trajectory: HeadTrajectory) -> tuple[HeadTrajectory, Tensor, viser.CameraFrustumHandle]:
        """The trajectory, its pose for each moment, and the frustum that is moved."""
        trajectory = trajectory.above_floor()
        rgb = _TRAJECTORY_COLOR
        path = trajectory.p_world_cpf.double().numpy()
        trail = np.stack([path[:-1], path[1:]], axis=1).astype(np.float32)
        self._scene.add_line_segments("/trajectory/path", trail, rgb, thickness=0.008)
        wxyz, position = _frustum_pose(trajectory, 0)
        frustum = self._scene.add_camera_frustum(
            "/trajectory/head", 1.2, 1.3, scale=0.12, thickness=0.006, color=rgb, wxyz=wxyz, position=position
        )
        return trajectory, nearest(trajectory.timestamps, torch.from_numpy(self.times)), frustum

    def _place_camera(self, server: viser.ViserServer) -> None:
        """To the right of the walker and somewhat ahead, far enough to see the whole path."""
        path = np.stack([self.focus(moment) for moment in range(0, len(self.times), 10)])
        middle = (path.min(0) + path.max(0)) / 2
        distance = max(2.8, 0.8 * float(np.ptp(path[:, :2], axis=0).max()))
        right = np.array([self._direction[1], -self._direction[0]])
        ahead = 0.9 * right + 0.45 * self._direction
        server.initial_camera.position = (*(middle[:2] + distance * ahead), 0.9 + 0.25 * distance)
        server.initial_camera.look_at = tuple(middle * (1, 1, 0.95))


def _bones(joints: Float64[np.ndarray, "joints 3"] | Float[np.ndarray, "joints 3"]) -> np.ndarray:
    return np.stack([joints[list(PARENTS[1:NUM_BODY_AND_ROOT])], joints[1:NUM_BODY_AND_ROOT]], axis=1).astype(
        np.float32
    )


def _wxyz(rotmats: Float[Tensor, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 4"]:
    return matrix_to_wxyz(rotmats.double()).numpy()


def _frustum_pose(trajectory: HeadTrajectory, frame: int) -> tuple[np.ndarray, np.ndarray]:
    R = trajectory.R_world_cpf[frame] @ _CPF_TO_CAMERA
    return _wxyz(R), trajectory.p_world_cpf[frame].double().numpy()
