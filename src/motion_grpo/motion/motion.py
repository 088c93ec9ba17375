"""What a user gets: the motion of one body (:class:`Motion`)."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from motion_grpo.body import (
    NUM_BODY_AND_ROOT,
    NUM_HAND_JOINTS,
    BodySurface,
    PosedBody,
    Skeleton,
    forward_kinematics,
)
from motion_grpo.motion.formats import FORMATS, check_output_path, suffix_of
from motion_grpo.motion.state import FPS
from motion_grpo.timing import frame_rate


@dataclass(frozen=True, eq=False)
class Motion:
    """One motion of T frames, in the z-up world of the head trajectory it belongs to."""

    root_rotmats: Float[Tensor, "frames 3 3"]
    """R_world_pelvis."""
    root_positions: Float[Tensor, "frames 3"]
    """Pelvis joint in the world, meters. Not SMPL's ``trans``, see :attr:`trans`."""
    body_rotmats: Float[Tensor, "frames 21 3 3"]
    """Relative to the parent joint, SMPL-H joints 1-21."""
    betas: Float[Tensor, "16"]
    """Shape, one for the whole motion."""
    contacts: Float[Tensor, "frames 21"]
    """Probability, in [0, 1], that a body joint rests on the ground."""
    timestamps: Float64[Tensor, " frames"]
    """Seconds, evenly spaced."""
    hand_rotmats: Float[Tensor, "frames 30 3 3"] | None = None
    """SMPL-H joints 22-51; None where hands are not known (flat)."""
    floor_height: float = 0.0
    """z of the floor in this world, meters."""
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

    @property
    def num_known_joints(self) -> int:
        """Joints that the motion tells of, root first: 22, or 52 where hands are known."""
        return NUM_BODY_AND_ROOT + (0 if self.hand_rotmats is None else NUM_HAND_JOINTS)

    @cached_property
    def local_rotmats(self) -> Float[Tensor, "frames 52 3 3"]:
        """Root first, flat hands where there are none."""
        hands = self.hand_rotmats
        if hands is None:
            hands = torch.eye(3).expand(len(self), NUM_HAND_JOINTS, 3, 3)
        return torch.cat([self.root_rotmats[:, None], self.body_rotmats, hands], dim=1)

    @cached_property
    def posed(self) -> PosedBody:
        """World rotation and position (meters) of all 52 joints."""
        return forward_kinematics(self.body.rest_joints(self.betas), self.local_rotmats, self.root_positions)

    @property
    def joints(self) -> Float[Tensor, "frames 52 3"]:
        """World positions, meters."""
        return self.posed.joints

    def vertices(self, model_path: str | Path) -> Float[Tensor, "frames vertices 3"]:
        """The surface of a licensed SMPL-H or SMPL-X file in this motion's shape and poses; world, meters.

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
        """SMPL's and AMASS's translation, meters: the pelvis stands at ``trans`` plus its place in the rest pose."""
        return self.root_positions - self.body.rest_joints(self.betas)[0]

    def above_floor(self) -> "Motion":
        """The same motion in a world whose floor is at z = 0: what heights are measured in."""
        if self.floor_height == 0:
            return self
        down = torch.tensor([0.0, 0.0, -self.floor_height])
        return replace(self, root_positions=self.root_positions + down, floor_height=0.0)

    def save(self, path: str | Path, *, model_path: str | Path | None = None) -> Path:
        """Writes the motion; the suffix says how, see :data:`~motion_grpo.motion.formats.FORMATS`.

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
        chosen = FORMATS[suffix_of(path)]
        chosen.load()(self, path, **({"model_path": model_path} if chosen.surface else {}))
        return path

    @staticmethod
    def load(path: str | Path, skeleton: Skeleton | None = None) -> "Motion":
        """Reads an AMASS npz: :func:`motion_grpo.io.amass.read_amass`."""
        return import_module("motion_grpo.io.amass").read_amass(path, skeleton)
