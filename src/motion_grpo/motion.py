"""What is denoised (:class:`MotionState` in its packed :class:`StateLayout`) and what a user gets (:class:`Motion`)."""

import warnings
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from motion_grpo.body import (
    NUM_BETAS,
    NUM_BODY_JOINTS,
    NUM_HAND_JOINTS,
    BodySurface,
    PosedBody,
    Skeleton,
    forward_kinematics,
)
from motion_grpo.io.formats import check_output_path, format_of
from motion_grpo.rotations import project_to_rotation, rotation_6d, rotation_from_6d
from motion_grpo.timing import frame_rate

RotationRepresentation = Literal["matrix", "6d"]
FPS = 30.0
"""Frames per second of every motion that the networks make, learn from and judge."""
_ROTATION_DIM = {"matrix": 9, "6d": 6}
_AMASS_KEYS = (
    "poses", "trans", "betas", "mocap_framerate", "mocap_frame_rate", "contacts", "timestamps", "floor_height",
    "skeleton",
)  # fmt: skip


@dataclass(frozen=True)
class StateLayout:
    """Order and size of the numbers a frame of the diffusion state consists of."""

    rotations: RotationRepresentation = "matrix"
    """``matrix``: 3x3 row-major, EgoAllo's. ``6d``: the first two columns, row-major."""
    include_hands: bool = True
    """Whether 15 joints a hand follow the body."""

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers per frame by modality, in the order in which they are packed; named as EgoAllo's weights are."""
        rotation = _ROTATION_DIM[self.rotations]
        sizes = {"betas": NUM_BETAS, "body_rotmats": NUM_BODY_JOINTS * rotation, "contacts": NUM_BODY_JOINTS}
        return sizes | ({"hand_rotmats": NUM_HAND_JOINTS * rotation} if self.include_hands else {})

    @property
    def dim(self) -> int:
        """Numbers per frame: 496 and 226 (matrix, with and without hands), 343 and 163 (6d)."""
        return sum(self.sizes.values())


class MotionState(NamedTuple):
    """One clean or predicted state, per frame; rotations are relative to the parent joint."""

    betas: Float[Tensor, "*batch frames 16"]
    body_rotmats: Float[Tensor, "*batch frames 21 3 3"]
    contacts: Float[Tensor, "*batch frames 21"]
    hand_rotmats: Float[Tensor, "*batch frames 30 3 3"] | None = None

    def pack(self, layout: StateLayout) -> Float[Tensor, "*batch frames d_state"]:
        """Flattens to the layout's order."""
        encode = rotation_6d if layout.rotations == "6d" else lambda R: R.flatten(-2)
        parts = [self.betas, encode(self.body_rotmats).flatten(-2), self.contacts]
        if layout.include_hands:
            parts.append(encode(self.hand_rotmats).flatten(-2))
        return torch.cat(parts, dim=-1)

    @staticmethod
    def unpack(
        x: Float[Tensor, "*batch frames d_state"],
        layout: StateLayout,
        *,
        project: bool = True,
        allow_reflection: bool = False,
    ) -> "MotionState":
        """Splits a packed state; body rotations become proper ones (hands too).

        Args:
            project: False leaves 3x3 blocks of a ``matrix`` layout as the network put them out.
            allow_reflection: EgoAllo's projection, which may return reflections, and which leaves hands as they are.
        """
        parts = dict(zip(layout.sizes, x.split(list(layout.sizes.values()), dim=-1), strict=True))

        def decode(flat: Tensor, is_hand: bool) -> Tensor:
            blocks = flat.unflatten(-1, (-1, _ROTATION_DIM[layout.rotations]))
            if layout.rotations == "6d":
                return rotation_from_6d(blocks)
            blocks = blocks.unflatten(-1, (3, 3))
            if not project or (allow_reflection and is_hand):
                return blocks
            return project_to_rotation(blocks, allow_reflection=allow_reflection)

        hands = parts.get("hand_rotmats")
        return MotionState(
            betas=parts["betas"],
            body_rotmats=decode(parts["body_rotmats"], False),
            contacts=parts["contacts"],
            hand_rotmats=None if hands is None else decode(hands, True),
        )

    def mean_betas(self, mask: Bool[Tensor, "*batch frames"]) -> Float[Tensor, "*batch 1 16"]:
        """One shape for the whole motion: the mean over the frames that count."""
        weight = mask[..., None].to(self.betas)
        return (self.betas * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)

    @property
    def local_rotmats(self) -> Float[Tensor, "*batch frames joints 3 3"]:
        """Body, and hand where there are any, in SMPL-H order without the root: 21 or 51 joints."""
        if self.hand_rotmats is None:
            return self.body_rotmats
        return torch.cat([self.body_rotmats, self.hand_rotmats], dim=-3)


@dataclass(frozen=True, eq=False)
class Motion:
    """One motion of T frames, in the z-up world of the head trajectory it belongs to."""

    root_rotmats: Float[Tensor, "frames 3 3"]
    """R_world_pelvis."""
    root_positions: Float[Tensor, "frames 3"]
    """Pelvis joint in the world, metres. Not SMPL's ``trans``, see :attr:`trans`."""
    body_rotmats: Float[Tensor, "frames 21 3 3"]
    """Relative to the parent joint, SMPL-H joints 1-21."""
    betas: Float[Tensor, "16"]
    """Shape, one for the whole motion."""
    contacts: Float[Tensor, "frames 21"]
    """Probability, in [0, 1], that a body joint rests on the ground."""
    timestamps: Float64[Tensor, "frames"]
    """Seconds, evenly spaced."""
    hand_rotmats: Float[Tensor, "frames 30 3 3"] | None = None
    """SMPL-H joints 22-51; None where hands are not known (flat)."""
    floor_height: float = 0.0
    """z of the floor in this world, metres."""
    skeleton: Skeleton | None = None
    """The body that ``betas`` refer to; None stands for :meth:`Skeleton.default`."""

    def __repr__(self) -> str:
        hands = "flat hands" if self.hand_rotmats is None else "hands"
        return (
            f"Motion({len(self)} frames, {len(self) / self.fps:.2f} s at {self.fps:.4g} fps, body {self.body.name}, "
            f"{hands}, floor at z = {self.floor_height:.3f} m)"
        )

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        """Frames per second; the library's 30 for a single frame, which has no rate."""
        if len(self) == 1:
            return FPS
        return frame_rate(self.timestamps)

    @property
    def body(self) -> Skeleton:
        """The skeleton, the default one where none is set."""
        return self.skeleton or Skeleton.default()

    @cached_property
    def local_rotmats(self) -> Float[Tensor, "frames 52 3 3"]:
        """Root first, flat hands where there are none."""
        hands = self.hand_rotmats
        if hands is None:
            hands = torch.eye(3).expand(len(self), NUM_HAND_JOINTS, 3, 3)
        return torch.cat([self.root_rotmats[:, None], self.body_rotmats, hands], dim=1)

    @cached_property
    def posed(self) -> PosedBody:
        """World rotation and position (metres) of all 52 joints."""
        return forward_kinematics(self.body.rest_joints(self.betas), self.local_rotmats, self.root_positions)

    @property
    def joints(self) -> Float[Tensor, "frames 52 3"]:
        """World positions, metres."""
        return self.posed.joints

    def vertices(self, model_path: str | Path) -> Float[Tensor, "frames vertices 3"]:
        """The surface of a licensed SMPL-H or SMPL-X file in this motion's shape and poses; world, metres.

        Args:
            model_path: the file that the betas belong to: SMPL-H's ``model.npz`` of the motion's own skeleton, or
                ``SMPLX_NEUTRAL.npz`` for the default body, which has SMPL-X's shape space.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a pickle, a file of another body model, or one of another shape space than the betas'.
        """
        return self.surface(model_path).pose(self.betas, self.local_rotmats, self.root_positions)

    def surface(self, model_path: str | Path) -> BodySurface:
        """The surface that a licensed file has, if the betas belong to it; raises as :meth:`vertices`."""
        surface = BodySurface.load(model_path)
        space = "smplx" if self.body.name.startswith("mannequin-x") else "smplh"
        if surface.kind != space:
            wanted = "SMPLX_NEUTRAL.npz" if space == "smplx" else "the SMPL-H file that the motion was loaded with"
            raise ValueError(
                f"{model_path} is an {surface.kind.upper()} file, and the motion's betas belong to the body "
                f"{self.body.name!r}; give {wanted}."
            )
        return surface

    @property
    def trans(self) -> Float[Tensor, "frames 3"]:
        """SMPL's and AMASS's translation, metres: the pelvis stands at ``trans`` plus its place in the rest pose."""
        return self.root_positions - self.body.rest_joints(self.betas)[0]

    def above_floor(self) -> "Motion":
        """The same motion in a world whose floor is at z = 0: what heights are measured in."""
        if self.floor_height == 0:
            return self
        down = torch.tensor([0.0, 0.0, -self.floor_height])
        return replace(self, root_positions=self.root_positions + down, floor_height=0.0)

    def save(self, path: str | Path, *, model_path: str | Path | None = None) -> Path:
        """Writes the motion; the suffix says how, see :data:`~motion_grpo.io.formats.FORMATS`.

        ``.npz`` is AMASS's layout, which :meth:`load`, smplx and Blender add-ons read. Every other format puts the
        floor at height zero.

        Args:
            path: where to; a file that is there is replaced.
            model_path: licensed SMPL-H or SMPL-X file whose surface is shown, in formats that have one; the mannequin
                when None.

        Raises:
            ValueError: unknown suffix; no frames; joints that are not finite; a body that has no surface here.
            OSError: the folder does not exist or cannot be written to.
            ModuleNotFoundError: the format needs an extra that is not installed.
        """
        path = check_output_path(path)
        if len(self) == 0:
            raise ValueError(f"{path}: the motion has no frames, so there is nothing to write.")
        finite = self.joints.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise ValueError(
                f"{path}: the motion has joints that are not finite in frame {int((~finite).nonzero()[0])}."
            )
        chosen = format_of(path)
        chosen.load()(self, path, **({"model_path": model_path} if chosen.surface else {}))
        return path

    @staticmethod
    def load(path: str | Path, skeleton: Skeleton | None = None) -> "Motion":
        """Reads an AMASS npz (SMPL-H, 156 pose columns), ours or anybody's.

        Args:
            skeleton: body that the file's betas refer to. When None it is the default body, or mannequin-x where the
                file says so, as motions of this library did before the default body was made symmetric.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not an AMASS npz; names what is missing or misshapen.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                # Other people's files hold object arrays beside these: what is not needed is not read.
                arrays = {key: file[key] for key in _AMASS_KEYS if key in file}
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} is not a readable npz file: {error}") from error
        missing = sorted({"poses", "trans", "betas"} - arrays.keys())
        if missing:
            raise ValueError(f"{path} is no AMASS motion: it has no {', '.join(missing)}.")
        poses, trans = arrays["poses"], arrays["trans"]
        if poses.ndim != 2 or poses.shape[1] != 156 or trans.shape != (len(poses), 3) or len(poses) == 0:
            raise ValueError(
                f"{path}: poses has shape {poses.shape} and trans {trans.shape}; "
                "SMPL-H needs (frames, 156) and (frames, 3)."
            )
        fps = float(arrays.get("mocap_framerate", arrays.get("mocap_frame_rate", FPS)))
        if not fps > 0:
            raise ValueError(f"{path}: mocap_framerate is {fps}; frames per second must be positive.")
        for key, shape in (("timestamps", (len(poses),)), ("contacts", (len(poses), NUM_BODY_JOINTS))):
            if key in arrays and arrays[key].shape != shape:
                raise ValueError(f"{path}: {key} has shape {arrays[key].shape}; {len(poses)} frames need {shape}.")
        tensor = lambda a: torch.tensor(a, dtype=torch.float32)  # noqa: E731
        betas = torch.zeros(NUM_BETAS)
        given = tensor(arrays["betas"]).flatten()[:NUM_BETAS]
        betas[: len(given)] = given
        rotmats = roma.rotvec_to_rotmat(tensor(poses).unflatten(1, (52, 3)))
        recorded = str(arrays.get("skeleton", (skeleton or Skeleton.default()).name))
        if skeleton is None and recorded == Skeleton.mannequin_x().name:
            skeleton = Skeleton.mannequin_x()
        body = skeleton or Skeleton.default()
        if recorded != body.name:
            warnings.warn(
                f"{path} was written with the body {recorded!r}, but its betas are read as those of {body.name!r}: "
                "pass the former as skeleton.",
                stacklevel=2,
            )
        timestamps = arrays.get("timestamps", np.arange(len(poses)) / fps)
        return Motion(
            root_rotmats=rotmats[:, 0],
            root_positions=tensor(trans) + body.rest_joints(betas)[0],
            body_rotmats=rotmats[:, 1:22],
            betas=betas,
            contacts=tensor(arrays.get("contacts", np.zeros((len(poses), NUM_BODY_JOINTS)))),
            timestamps=torch.tensor(timestamps, dtype=torch.float64),
            hand_rotmats=rotmats[:, 22:] if bool(np.abs(poses[:, 66:]).max(initial=0) > 1e-6) else None,
            floor_height=float(arrays.get("floor_height", 0.0)),
            skeleton=skeleton,
        )
