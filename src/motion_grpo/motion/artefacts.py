"""Artefacts made by hand, of graded severity: what a critic of motion has to notice, and notice more the worse it is.

Each is put on recorded motion, whose severity 0 is that motion itself::

    spoilt = ARTEFACTS["jitter"](body_rotmats, betas, R_world_cpf, p_world_cpf, mask, skeleton, severity, generator)
    model(*perceptual_inputs(*spoilt), mask).score
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motion_grpo.body import BODY_JOINT_NAMES, Skeleton
from motion_grpo.geometry.rotations import heading, interpolate_rotations, yaw_rotation
from motion_grpo.motion import FPS

_LIMBS = [
    joint
    for joint, name in enumerate(BODY_JOINT_NAMES)
    if name[2:] in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
]


@dataclass(frozen=True)
class SeverityCurve:
    """Scores under a growing artefact."""

    unit: str
    severities: list[float]
    mean_scores: list[float]
    """Over windows, one a severity."""
    spearman: float
    """Correlation of score and severity within a window, mean over windows; a window of equal scores counts 0."""
    lo: float
    """Bounds of the 95% interval of that."""
    hi: float
    pooled_spearman: float
    """Over all windows and severities at once: windows differ in score before anything is done to them."""
    windows: int


class HeadedMotion(NamedTuple):
    """A body and the head trajectory it comes with; what :func:`~motion_grpo.models.perceptual_inputs` takes."""

    body_rotmats: Float[Tensor, "batch frames 21 3 3"]
    """Relative to the parent joint."""
    joints: Float[Tensor, "batch frames 22 3"]
    """World positions above a floor at z = 0, metres."""
    R_world_cpf: Float[Tensor, "batch frames 3 3"]
    p_world_cpf: Float[Tensor, "batch frames 3"]
    """Metres."""


class _Recorded(NamedTuple):
    """What an artefact is put on, and how."""

    motion: HeadedMotion
    hang: Callable[[Float[Tensor, "batch frames 21 3 3"]], Float[Tensor, "batch frames 22 3"]]
    """Joints of the body in another pose under the same head."""
    mask: Bool[Tensor, "batch frames"]
    severity: Float[Tensor, "batch"]
    generator: torch.Generator | None
    other: Int[Tensor, "batch"] | None


@dataclass(frozen=True)
class Artefact:
    """A way to spoil recorded motion."""

    spoil: Callable[[_Recorded], HeadedMotion]
    unit: str
    """Of the severity."""
    severities: tuple[float, ...]
    """0, then from barely visible to gross."""

    def __call__(
        self,
        body_rotmats: Float[Tensor, "batch frames 21 3 3"],
        betas: Float[Tensor, "batch #frames 16"],
        R_world_cpf: Float[Tensor, "batch frames 3 3"],
        p_world_cpf: Float[Tensor, "batch frames 3"],
        mask: Bool[Tensor, "batch frames"],
        skeleton: Skeleton,
        severity: Float[Tensor, "batch"],
        generator: torch.Generator | None = None,
        other: Int[Tensor, "batch"] | None = None,
    ) -> HeadedMotion:
        """The motion with the artefact; what is drawn does not depend on the severity.

        Args:
            body_rotmats: recorded, relative to the parent joint.
            betas: shape.
            R_world_cpf: orientation of the recorded central pupil frame.
            p_world_cpf: its position above a floor at z = 0, metres.
            mask: True for frames that exist, which come first in a row.
            skeleton: body that the betas refer to.
            severity: one a row, in :attr:`unit`.
            generator: torch's global one when None.
            other: row that each row is mixed with, where the artefact takes from another clip; drawn when None, never
                the row itself.

        Raises:
            ValueError: a single row, where another is needed.
        """

        def hang(local: Tensor) -> Tensor:
            return skeleton.place_by_head(betas, local, R_world_cpf, p_world_cpf).joints

        motion = HeadedMotion(body_rotmats, hang(body_rotmats), R_world_cpf, p_world_cpf)
        return self.spoil(_Recorded(motion, hang, mask, severity, generator, other))


def _foot_sliding(recorded: _Recorded) -> HeadedMotion:
    """Body and head drift over the floor together: only feet that should stand still give it away."""
    motion, batch = recorded.motion, len(recorded.mask)
    angle = 2 * torch.pi * _draw(torch.rand, (batch,), recorded)
    direction = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)
    time = torch.arange(recorded.mask.shape[1], device=angle.device) / FPS
    return _moved(motion, (recorded.severity[:, None] * direction)[:, None] * time[:, None])


def _jitter(recorded: _Recorded) -> HeadedMotion:
    """White noise on every joint and frame, under the true head."""
    local = recorded.motion.body_rotmats
    noise = _draw(torch.randn, (*local.shape[:3], 3), recorded) * recorded.severity[:, None, None, None]
    return _posed(recorded, local @ roma.rotvec_to_rotmat(noise))


def _floor_penetration(recorded: _Recorded) -> HeadedMotion:
    """Body and head sink into the floor together."""
    down = torch.tensor([0.0, 0.0, -1.0], device=recorded.severity.device)
    return _moved(recorded.motion, (recorded.severity[:, None] * down)[:, None])


def _other_limbs(recorded: _Recorded) -> HeadedMotion:
    """Arms and legs turned towards those of another clip, under the true head."""
    own = recorded.motion.body_rotmats
    other = _of_other(own, recorded)
    mixed = interpolate_rotations(own[:, :, _LIMBS], other[:, :, _LIMBS], recorded.severity[:, None, None])
    local = own.clone()
    local[:, :, _LIMBS] = mixed
    return _posed(recorded, local)


def _other_head(recorded: _Recorded) -> HeadedMotion:
    """The body as it was; its head trajectory turned towards that of another clip.

    The other one is moved along the floor and turned about the vertical to the own one's place and heading at the first
    frame, and keeps its height.
    """
    motion = recorded.motion
    # One draw for both, or rotations and positions would be of two clips.
    recorded = recorded._replace(other=_other_rows(recorded))
    R, p = _of_other(motion.R_world_cpf, recorded), _of_other(motion.p_world_cpf, recorded)
    turn = yaw_rotation(heading(motion.R_world_cpf[:, 0]) - heading(R[:, 0]))
    along_floor = torch.tensor([1.0, 1.0, 0.0], device=p.device)
    p = (p - p[:, :1] * along_floor) @ turn.mT + motion.p_world_cpf[:, :1] * along_floor
    return motion._replace(
        R_world_cpf=interpolate_rotations(motion.R_world_cpf, turn[:, None] @ R, recorded.severity[:, None]),
        p_world_cpf=torch.lerp(motion.p_world_cpf, p, recorded.severity[:, None, None]),
    )


ARTEFACTS: dict[str, Artefact] = {
    "foot_sliding": Artefact(_foot_sliding, "m/s", (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)),
    "jitter": Artefact(_jitter, "rad", (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
    "floor_penetration": Artefact(_floor_penetration, "m", (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    "other_limbs": Artefact(_other_limbs, "share", (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)),
    "other_head": Artefact(_other_head, "share", (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)),
}
"""By name: drift of m/s over the floor, rotation noise of a standard deviation, metres below the floor, and shares of
the way to another clip's limbs and head trajectory."""


def _moved(motion: HeadedMotion, shift: Float[Tensor, "batch #frames 3"]) -> HeadedMotion:
    return motion._replace(joints=motion.joints + shift[:, :, None], p_world_cpf=motion.p_world_cpf + shift)


def _posed(recorded: _Recorded, local: Float[Tensor, "batch frames 21 3 3"]) -> HeadedMotion:
    return recorded.motion._replace(body_rotmats=local, joints=recorded.hang(local))


def _draw(distribution: Callable[..., Tensor], shape: tuple[int, ...], recorded: _Recorded) -> Tensor:
    """Random numbers, drawn where the generator lives."""
    device, generator = recorded.severity.device, recorded.generator
    source = device if generator is None else generator.device
    return distribution(shape, generator=generator, device=source).to(device)


def _other_rows(recorded: _Recorded) -> Int[Tensor, "batch"]:
    if recorded.other is not None:
        return recorded.other
    batch = len(recorded.mask)
    if batch < 2:
        raise ValueError("A batch of one motion has no other one to take from; spoil two or more together.")
    # All rows shifted by a random number of places: everybody gives once, nobody to itself.
    shift = 1 + (_draw(torch.rand, (), recorded) * (batch - 1)).long()
    return (torch.arange(batch, device=shift.device) + shift) % batch


def _of_other(values: Float[Tensor, "batch frames *any"], recorded: _Recorded) -> Float[Tensor, "batch frames *any"]:
    """Those of the other row, whose last real frame is held where it is shorter."""
    other = _other_rows(recorded)
    last = recorded.mask.sum(1) - 1
    frame = torch.arange(values.shape[1], device=values.device).minimum(last[other, None])
    return values[other[:, None], frame]
