"""What a head that is not upright tells of the axes, and of the order of the quaternions, that its poses came in."""

import warnings

import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.trajectory.checks import Origin
from motion_grpo.trajectory.conventions import Convention

UPRIGHT = 0.5
"""Least mean vertical component of the up axis of a head that needs no questions."""
# An axis of the head that points along one of the world throughout: on average, and in nearly every frame.
_ALIGNED, _ALIGNED_THROUGHOUT = 0.7, 0.25
# The head's up axis, the world's, and whether they point the same way: what that looks like, and how to say it.
_LOOKS = (
    ("y", "y", 1, "The world looks y up", "openxr", ", or 'unity' where the system is left-handed"),
    ("y", "z", -1, "The head's axes look like a camera's (x right, y down, z forward)", "camera", ""),
    (
        *("y", "y", -1, "The head's axes look like a camera's (x right, y down, z forward), and the world y up"),
        *("right up back / right down forward", ""),
    ),
    ("z", "z", 1, "The head's axes look like x forward, y left, z up", "ros", ", or 'unreal' where it is left-handed"),
)


def check_upright(
    R_world_head: Float64[Tensor, "frames 3 3"],
    p_world_head: Float64[Tensor, "frames 3"],
    convention: Convention,
    origin: Origin,
    *,
    axes_given: bool,
    R_reordered: Float64[Tensor, "frames 3 3"] | None = None,
    order: str = "",
    order_given: bool = False,
    remedy: str = "",
    note: str = "",
) -> None:
    """Asks about a head that is not upright, and says what its axes look like.

    Of an upright head two orders of quaternions differ by its heading only (its up axis then leans by the heading), so
    a wrong order shows as soon as the wearer turns, and cannot be seen while the heading stays near 0.

    Args:
        R_world_head, p_world_head: in the axes of the file or array.
        convention: how they are understood.
        axes_given: whether somebody said so; then they get a warning, and else an error.
        R_reordered: the rotations if the quaternions were in the other ``order``.
        order_given: whether the file says what the order is, so that other axes explain more.
        remedy: what to say where the axes are known, in place of what they look like.
        note: what else to say.

    Raises:
        ValueError: the head is not upright, and nobody said that its axes are these; or it would be throughout if the
            quaternions were in the other order.
    """
    if len(R_world_head) == 0:  # whoever counts poses says so
        return
    lean = float(_up(R_world_head, convention).mean())
    if lean >= UPRIGHT:
        return
    looks = remedy or _looks(R_world_head, p_world_head, origin)
    if R_reordered is not None and float(_up(R_reordered, convention).min()) > UPRIGHT and not (order_given and looks):
        raise ValueError(
            f"The quaternions of {origin.source} look like {order}: read so, the head is upright throughout, and as "
            f"they are its up axis has a mean vertical component of {lean:.2f}. Reorder them"
            + (f", unless other axes explain it: {looks[0].lower()}{looks[1:]}" if looks else ".")
        )
    looks = (looks or _keeps_direction(R_world_head, origin)) + note
    problem = f"The head of {origin.source} is not upright: its up axis has a mean vertical component of {lean:.2f}."
    if axes_given:
        warnings.warn(f"{problem} {looks}", stacklevel=3)
        return
    as_it_is = origin.giving("convention='cpf'")
    raise ValueError(f"{problem} {looks} If the head really lies so, say it with {as_it_is}.")


def _up(R_world_head: Float64[Tensor, "frames 3 3"], convention: Convention) -> Float64[Tensor, " frames"]:
    """Vertical component of the axis that the convention takes for the head's up."""
    return convention.A_world[2] @ R_world_head @ convention.A_cpf_head[1]


def _looks(
    R_world_head: Float64[Tensor, "frames 3 3"], p_world_head: Float64[Tensor, "frames 3"], origin: Origin
) -> str:
    """Which axes of those that systems have the head seems to have, and how to say so; empty for none."""
    if found := [look for look in _LOOKS if _aligned(R_world_head, look[0], look[1], look[2])]:
        # While the heading does not change, other axes are aligned too; a head travels least along the vertical.
        travel = p_world_head.std(dim=0)
        *_, look, name, other = min(found, key=lambda look: float(travel["xyz".index(look[1])]))
        argument = f"convention='{name}'"
        return f"{look}: {origin.giving(argument)}{other}."
    return ""


def _keeps_direction(R_world_head: Float64[Tensor, "frames 3 3"], origin: Origin) -> str:
    """Which axis of the head points along one of the world, for those who know their system."""
    for head, world, sign in ((h, w, s) for h in "xyz" for w in "xyz" for s in (1, -1)):
        if _aligned(R_world_head, head, world, sign):
            in_words = origin.giving("convention='WORLD / HEAD'")
            return (
                f"The head's axis {head} points {'along' if sign > 0 else 'against'} the world's {world} throughout: "
                f"name all axes in words with {in_words}, e.g. 'forward left up / right down forward'."
            )
    return "Check the world's up axis (z), the head's axes (x left, y up, z forward) and the order of the quaternions."


def _aligned(R_world_head: Float64[Tensor, "frames 3 3"], head: str, world: str, sign: int) -> bool:
    along = sign * R_world_head[:, "xyz".index(world), "xyz".index(head)]
    some = along[:: max(1, len(along) // 10_000)]
    return bool(along.mean() > _ALIGNED and torch.quantile(some, 0.05) > _ALIGNED_THROUGHOUT)
