"""How joints move with the rotations of a body that hangs from its head: derivatives in closed form."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import HEAD, NUM_JOINTS, PARENTS, PosedBody
from motion_grpo.rotations import matrix_to_wxyz


def _turned() -> tuple[tuple[int, ...], ...]:
    """By joint, how its rotation turns each other joint: 1 with it, -1 against it, 0 not at all."""
    below = [{joint} for joint in range(NUM_JOINTS)]
    for joint in reversed(range(1, NUM_JOINTS)):
        below[PARENTS[joint]] |= below[joint]
    return tuple(
        tuple(-(other not in under) if HEAD in under else int(other in under) for other in range(NUM_JOINTS))
        for under in below
    )


TURNED: tuple[tuple[int, ...], ...] = _turned()
"""Of joint ``i``, where the head is held still: what lies below it turns with it, or, where the head itself lies below
it, all the rest turns the other way."""


def position_jacobian(
    body: PosedBody, points: Sequence[int], joints: Sequence[int]
) -> Float[Tensor, "*batch values columns"]:
    """Change of the positions of ``points`` (three values each, world) with ``R exp(delta)`` of ``joints``.

    A joint turns what it moves about its own place: axis cross lever arm. Metres per radian.
    """
    axes = body.rotmats[..., joints, :, :].mT
    levers = body.joints[..., points, None, :] - body.joints[..., None, joints, :]
    signs = _signs(points, joints, levers)[..., None, None]
    # (points, joints, axis, xyz) to rows of points and xyz, columns of joints and axes.
    change = torch.linalg.cross(axes[..., None, :, :, :] * signs, levers[..., None, :])
    return change.movedim(-1, -3).flatten(-2).flatten(-3, -2)


def rotation_jacobian(
    body: PosedBody, points: Sequence[int], joints: Sequence[int]
) -> Float[Tensor, "*batch points 3 columns"]:
    """Turn of the joints ``points``, in their own frames, with ``R exp(delta)`` of ``joints``."""
    axes = body.rotmats[..., None, joints, :, :] * _signs(points, joints, body.joints)[..., None, None]
    turn = body.rotmats[..., points, None, :, :].mT @ axes
    return turn.movedim(-2, -3).flatten(-2)


def _signs(points: Sequence[int], joints: Sequence[int], like: Tensor) -> Float[Tensor, "points joints"]:
    return like.new_tensor([[TURNED[joint][point] for joint in joints] for point in points])


def log_map(
    rotmats: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3 3"]]:
    """Rotation vectors ``r = log(R)`` and the Jacobians ``J`` of ``log(R exp(delta)) = r + J delta``.

    ``J`` is the inverse of SO(3)'s right Jacobian (Sola et al., "A micro Lie theory for state estimation in robotics",
    2018, Eq. 144); its transpose is the inverse of the left one: ``log(exp(delta) R) = r + J^T delta``.
    """
    wxyz = matrix_to_wxyz(rotmats)
    w, v = wxyz[..., :1], wxyz[..., 1:]
    # The shorter of the two turns: q and -q are one rotation.
    v, w = torch.where(w < 0, -v, v), w.abs()
    sine = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    half = torch.atan2(sine, w)
    small = sine < 1e-4
    safe = torch.where(small, 1.0, sine)
    r = v * torch.where(small, 2.0, 2 * half / safe)
    angle2 = 4 * half * half
    bend = torch.where(half < 5e-3, 1 / 12, (1 - half * w / safe) / angle2.clamp_min(1e-12))
    x, y, z = r.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    jacobian = bend[..., None] * r[..., :, None] * r[..., None, :] + 0.5 * skew
    jacobian.diagonal(dim1=-2, dim2=-1).add_(1 - bend * angle2)
    return r, jacobian
