"""How joints move with the rotations of a body that hangs from its head: derivatives in closed form."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import HEAD, NUM_JOINTS, PARENTS, PosedBody


def _turned() -> tuple[tuple[int, ...], ...]:
    below = [{joint} for joint in range(NUM_JOINTS)]
    for joint in reversed(range(1, NUM_JOINTS)):
        below[PARENTS[joint]] |= below[joint]
    return tuple(
        tuple(-(other not in under) if HEAD in under else int(other in under) for other in range(NUM_JOINTS))
        for under in below
    )


TURNED: tuple[tuple[int, ...], ...] = _turned()
"""By joint, how its rotation turns every other joint while the head is held still: 1 with it, -1 against it, 0 not at
all. What lies below it turns with it, or, where the head itself lies below it, all the rest turns the other way."""


def position_jacobian(
    body: PosedBody, points: Sequence[int], joints: Sequence[int]
) -> Float[Tensor, "*batch values columns"]:
    """Change of the positions of ``points`` with ``R exp(delta)`` of ``joints``, meters per radian.

    A joint turns what it moves about its own place: axis cross lever arm. Rows are the world's x, y and z of each
    point; columns are all joints' first axis, then all joints' second and third.
    """
    points, joints = list(points), list(joints)
    X, Y, Z = body.rotmats[..., joints, :, :].permute(*range(body.rotmats.dim() - 3), -2, -1, -3).unbind(-3)
    levers = body.joints[..., points, None, :] - body.joints[..., None, joints, :]
    signs = _signs(tuple(points), tuple(joints), levers.device, levers.dtype)
    x, y, z = (levers * signs[..., None])[..., None, :, :].unbind(-1)
    X, Y, Z = (rows[..., None, :, :] for rows in (X, Y, Z))
    return torch.stack([Y * z - Z * y, Z * x - X * z, X * y - Y * x], dim=-3).flatten(-2).flatten(-3, -2)


def rotation_jacobian(
    body: PosedBody, points: Sequence[int], joints: Sequence[int]
) -> Float[Tensor, "*batch points 3 columns"]:
    """Turn of the joints ``points``, in their own frames, with ``R exp(delta)`` of ``joints``; columns likewise."""
    points, joints = list(points), list(joints)
    signs = _signs(tuple(points), tuple(joints), body.joints.device, body.joints.dtype)
    axes = body.rotmats[..., None, joints, :, :] * signs[..., None, None]
    turn = body.rotmats[..., points, None, :, :].mT @ axes
    return turn.movedim(-3, -1).flatten(-2)


@cache
def _signs(
    points: tuple[int, ...], joints: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "points joints"]:
    signs = [[TURNED[joint][point] for joint in joints] for point in points]
    return torch.tensor(signs, device=device, dtype=dtype)
