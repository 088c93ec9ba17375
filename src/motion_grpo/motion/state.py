"""What is denoised: :class:`MotionState`, packed in its :class:`StateLayout`."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import NUM_BETAS, NUM_BODY_JOINTS, NUM_HAND_JOINTS
from motion_grpo.geometry.rotations import project_to_rotation, rotation_6d, rotation_from_6d

RotationRepresentation = Literal["matrix", "6d"]
FPS = 30.0
"""Frames per second of every motion that the networks make, learn from and judge."""
_ROTATION_DIM = {"matrix": 9, "6d": 6}


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
            if self.hand_rotmats is None:
                raise ValueError("The layout has hands and this state has none; give it hand_rotmats.")
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

    def mean_betas(self, mask: Bool[Tensor, "*batch frames"] | None = None) -> Float[Tensor, "*batch 1 16"]:
        """One shape for the whole motion: the mean over the frames that count; over all without a mask."""
        if mask is None:
            return self.betas.mean(-2, keepdim=True)
        weight = mask[..., None].to(self.betas)
        return (self.betas * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)

    @property
    def local_rotmats(self) -> Float[Tensor, "*batch frames joints 3 3"]:
        """Body, and hand where there are any, in SMPL-H order without the root: 21 or 51 joints."""
        if self.hand_rotmats is None:
            return self.body_rotmats
        return torch.cat([self.body_rotmats, self.hand_rotmats], dim=-3)
