"""Artefacts made by hand, of graded severity: what a critic of motion has to notice, and notice more the worse it is.

Each is put on recorded motion, whose severity 0 is that motion itself::

    spoilt = ARTEFACTS["jitter"](body_rotmats, betas, R_world_cpf, p_world_cpf, mask, skeleton, severity, generator)
    model(*perceptual_inputs(*spoilt), mask).score

A fault that has an opposite comes with it (:data:`OPPOSITES`): a critic that has only ever seen bodies sink takes one
that hovers for better than one that stands.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motion_grpo.body import BODY_JOINT_NAMES, NUM_BETAS, Skeleton
from motion_grpo.geometry.rotations import (
    heading,
    interpolate_rotations,
    rotation_6d,
    rotation_from_6d,
    yaw_rotation,
)
from motion_grpo.motion import FPS

_LIMBS = [
    joint
    for joint, name in enumerate(BODY_JOINT_NAMES)
    if name[2:] in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
]
_KNEES = [BODY_JOINT_NAMES.index("L_knee"), BODY_JOINT_NAMES.index("R_knee")]
_NECK = BODY_JOINT_NAMES.index("neck")


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
    """World positions above a floor at z = 0, meters."""
    R_world_cpf: Float[Tensor, "batch frames 3 3"]
    p_world_cpf: Float[Tensor, "batch frames 3"]
    """Meters."""


@dataclass(frozen=True, eq=False)
class _Recorded:
    """What an artefact is put on, and how."""

    body_rotmats: Float[Tensor, "batch frames 21 3 3"]
    betas: Float[Tensor, " batch #frames 16"]
    R_world_cpf: Float[Tensor, "batch frames 3 3"]
    p_world_cpf: Float[Tensor, "batch frames 3"]
    mask: Bool[Tensor, "batch frames"]
    skeleton: Skeleton
    severity: Float[Tensor, " batch"]
    generator: torch.Generator | None
    other: Int[Tensor, " batch"] | None

    @cached_property
    def motion(self) -> HeadedMotion:
        """As it was recorded."""
        return self.hung(self.body_rotmats, self.betas)

    def hung(
        self, body_rotmats: Float[Tensor, "batch frames 21 3 3"], betas: Float[Tensor, " batch #frames 16"]
    ) -> HeadedMotion:
        """Another pose, or another body, under the same head."""
        R, p = self.R_world_cpf, self.p_world_cpf
        return HeadedMotion(body_rotmats, self.skeleton.place_by_head(betas, body_rotmats, R, p).joints, R, p)


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
        betas: Float[Tensor, " batch #frames 16"],
        R_world_cpf: Float[Tensor, "batch frames 3 3"],
        p_world_cpf: Float[Tensor, "batch frames 3"],
        mask: Bool[Tensor, "batch frames"],
        skeleton: Skeleton,
        severity: Float[Tensor, " batch"],
        generator: torch.Generator | None = None,
        other: Int[Tensor, " batch"] | None = None,
    ) -> HeadedMotion:
        """The motion with the artefact; what is drawn does not depend on the severity.

        Args:
            body_rotmats: recorded, relative to the parent joint.
            betas: shape.
            R_world_cpf: orientation of the recorded central pupil frame.
            p_world_cpf: its position above a floor at z = 0, meters.
            mask: True for frames that exist, which come first in a row.
            skeleton: body that the betas refer to.
            severity: one a row, in :attr:`unit`.
            generator: torch's global one when None.
            other: row that each row is mixed with, where the artefact takes from another clip; drawn when None, never
                the row itself.

        Raises:
            ValueError: a single row, where another is needed.
        """
        return self.spoil(
            _Recorded(body_rotmats, betas, R_world_cpf, p_world_cpf, mask, skeleton, severity, generator, other)
        )


def _foot_sliding(recorded: _Recorded) -> HeadedMotion:
    """Body and head drift over the floor together: only feet that should stand still give it away."""
    angle = 2 * torch.pi * _draw(torch.rand, (len(recorded.mask), 1), recorded)
    time = torch.arange(recorded.mask.shape[1], device=angle.device) / FPS
    return _moved(recorded.motion, recorded.severity[:, None, None] * time[:, None] * _along_floor(angle))


def _travel(recorded: _Recorded, sign: float) -> HeadedMotion:
    """Body and head go farther along their heading than the feet carry them, or less far."""
    step = _along_floor(heading(recorded.R_world_cpf)) / FPS
    way = torch.cat([torch.zeros_like(step[:, :1]), step[:, 1:].cumsum(1)], dim=1)
    return _moved(recorded.motion, sign * recorded.severity[:, None, None] * way)


def _jitter(recorded: _Recorded) -> HeadedMotion:
    """White noise on every joint and frame, under the true head."""
    local = recorded.body_rotmats
    noise = _draw(torch.randn, (*local.shape[:3], 3), recorded) * recorded.severity[:, None, None, None]
    return recorded.hung(local @ roma.rotvec_to_rotmat(noise), recorded.betas)


def _over_smoothed(recorded: _Recorded) -> HeadedMotion:
    """Poses averaged over time by a Gaussian, under the true head, which is not: fine motion goes first, then all."""
    local, severity = recorded.body_rotmats, recorded.severity
    time = torch.arange(recorded.mask.shape[1], device=severity.device) / FPS
    distance = (time[:, None] - time) / severity.clamp(min=1e-3)[:, None, None]
    weight = (-0.5 * distance.square()).exp() * recorded.mask[:, None]
    # Padded frames may be too far from all real ones to be given a weight; whatever they hold is not looked at.
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-9)
    mean = (weight @ rotation_6d(local).flatten(2)).unflatten(-1, (-1, 6))
    smooth = torch.where(recorded.mask[..., None, None, None], rotation_from_6d(mean), local)
    return recorded.hung(torch.where(severity[:, None, None, None, None] > 0, smooth, local), recorded.betas)


def _raised(recorded: _Recorded, sign: float) -> HeadedMotion:
    """Body and head rise over the floor, or sink into it, together."""
    up = torch.tensor([0.0, 0.0, sign], device=recorded.severity.device)
    return _moved(recorded.motion, recorded.severity[:, None, None] * up)


def _resized(recorded: _Recorded, sign: float) -> HeadedMotion:
    """A taller or shorter body in the same poses hangs from the true head: its feet end under or over the floor."""
    betas, skeleton = recorded.betas, recorded.skeleton
    first = torch.zeros(2, NUM_BETAS, device=betas.device)
    first[1, 0] = 1.0
    per_beta = skeleton.stature(first).diff()
    return recorded.hung(recorded.body_rotmats, betas + sign * (recorded.severity / per_beta)[:, None, None] * first[1])


def _turned(recorded: _Recorded, joints: list[int], sign: float) -> HeadedMotion:
    """Joints pitched in every frame (about the x axis of the rest pose), under the true head."""
    axis = torch.tensor([sign, 0.0, 0.0], device=recorded.severity.device)
    turn = roma.rotvec_to_rotmat(recorded.severity[:, None] * axis)
    local = recorded.body_rotmats.clone()
    local[:, :, joints] = local[:, :, joints] @ turn[:, None, None]
    return recorded.hung(local, recorded.betas)


def _other_limbs(recorded: _Recorded) -> HeadedMotion:
    """Arms and legs turned towards those of another clip, under the true head."""
    own = recorded.body_rotmats
    other = _of_other(own, recorded)
    mixed = interpolate_rotations(own[:, :, _LIMBS], other[:, :, _LIMBS], recorded.severity[:, None, None])
    local = own.clone()
    local[:, :, _LIMBS] = mixed
    return recorded.hung(local, recorded.betas)


def _other_head(recorded: _Recorded) -> HeadedMotion:
    """The body as it was; its head trajectory turned towards that of another clip.

    The other one is moved along the floor and turned about the vertical to the own one's place and heading at the first
    frame, and keeps its height.
    """
    motion = recorded.motion
    # One draw for both, or rotations and positions would be of two clips.
    recorded = replace(recorded, other=_other_rows(recorded))
    R, p = _of_other(motion.R_world_cpf, recorded), _of_other(motion.p_world_cpf, recorded)
    turn = yaw_rotation(heading(motion.R_world_cpf[:, 0]) - heading(R[:, 0]))
    along_floor = torch.tensor([1.0, 1.0, 0.0], device=p.device)
    p = (p - p[:, :1] * along_floor) @ turn.mT + motion.p_world_cpf[:, :1] * along_floor
    return motion._replace(
        R_world_cpf=interpolate_rotations(motion.R_world_cpf, turn[:, None] @ R, recorded.severity[:, None]),
        p_world_cpf=torch.lerp(motion.p_world_cpf, p, recorded.severity[:, None, None]),
    )


_METRES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_SPEEDS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_ANGLES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
_BENDS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)

ARTEFACTS: dict[str, Artefact] = {
    "floor_penetration": Artefact(partial(_raised, sign=-1.0), "m", _METRES),
    "hovering": Artefact(partial(_raised, sign=1.0), "m", _METRES),
    "growing": Artefact(partial(_resized, sign=1.0), "m", _METRES),
    "shrinking": Artefact(partial(_resized, sign=-1.0), "m", _METRES),
    "stretched_knees": Artefact(partial(_turned, joints=_KNEES, sign=-1.0), "rad", _BENDS),
    "lifted_feet": Artefact(partial(_turned, joints=_KNEES, sign=1.0), "rad", _BENDS),
    "leaning_forward": Artefact(partial(_turned, joints=[_NECK], sign=-1.0), "rad", _ANGLES),
    "leaning_back": Artefact(partial(_turned, joints=[_NECK], sign=1.0), "rad", _ANGLES),
    "over_travel": Artefact(partial(_travel, sign=1.0), "m/s", _SPEEDS),
    "under_travel": Artefact(partial(_travel, sign=-1.0), "m/s", _SPEEDS),
    "jitter": Artefact(_jitter, "rad", (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
    "over_smoothed": Artefact(_over_smoothed, "s", (0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)),
    "foot_sliding": Artefact(_foot_sliding, "m/s", _SPEEDS),
    "other_limbs": Artefact(_other_limbs, "share", _SHARES),
    "other_head": Artefact(_other_head, "share", _SHARES),
}
"""By name: meters under and over the floor; meters that the body is taller and shorter than it was; angle by which
knees are stretched (soon the wrong way) and bent, and by which the body below the neck swings back (its trunk leans
forward) and forth; meters a second that body and head go too far and fall behind; deviation of rotation noise, and
seconds of the Gaussian that poses are averaged by; drift over the floor in any direction; and shares of the way to
another clip's limbs and head trajectory."""

OPPOSITES: tuple[tuple[str, str], ...] = (
    ("floor_penetration", "hovering"),
    ("growing", "shrinking"),
    ("stretched_knees", "lifted_feet"),
    ("leaning_forward", "leaning_back"),
    ("over_travel", "under_travel"),
    ("jitter", "over_smoothed"),
)
"""Artefacts that are the two sides of one fault. Sliding goes in all directions and what is another clip's has no
opposite."""


def _along_floor(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
    """The horizontal unit vector of a heading."""
    return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)


def _moved(motion: HeadedMotion, shift: Float[Tensor, " batch #frames 3"]) -> HeadedMotion:
    return motion._replace(joints=motion.joints + shift[:, :, None], p_world_cpf=motion.p_world_cpf + shift)


def _draw(distribution: Callable[..., Tensor], shape: tuple[int, ...], recorded: _Recorded) -> Tensor:
    """Random numbers, drawn where the generator lives."""
    device, generator = recorded.severity.device, recorded.generator
    source = device if generator is None else generator.device
    return distribution(shape, generator=generator, device=source).to(device)


def _other_rows(recorded: _Recorded) -> Int[Tensor, " batch"]:
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
