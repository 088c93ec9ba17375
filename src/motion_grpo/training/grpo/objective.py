"""GRPO's arithmetic as pure functions: advantages, densities, the clipped objective and its step weights.

Conditions have G samples each, next to each other: ``values.view(conditions, G, ...)``. Credit is given to a whole
sample (``"sequence"``, the paper; tensors are (samples,)) or, beyond the paper, frame by frame (``"frame"``; (samples,
frames)) or frame by frame and joint by joint (``"joint"``; (samples, frames, 22), see :func:`by_joint`). What stands in
frames that the mask leaves out is 0 or meaningless.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_JOINTS
from motion_grpo.inference.rollout import Transition
from motion_grpo.motion import StateLayout

AGGREGATIONS = ("mean", "sum", "sum_then_normalize", "normalize_then_sum")
CREDITS = ("sequence", "frame", "joint")
REDUCTIONS = ("mean", "sum")
STEP_WEIGHTS = ("raw", "even")


# ---- advantages


def normalize_in_groups(
    values: Float[Tensor, " samples *parts"],
    group_size: int,
    std_floor: float = 1e-4,
    mask: Bool[Tensor, "samples frames"] | None = None,
) -> tuple[Float[Tensor, " samples *parts"], Float[Tensor, " conditions"]]:
    """(value - group mean) / group std (Eq. 5), and the std of each group.

    The std is the unbiased one (G - 1), as in TRL. Per frame, the mean is the group's at that frame, but the std is
    pooled over the window: sqrt of the mean over frames of the variance. A std of its own for every frame would make
    frames in which the members hardly differ as loud as those in which they do. Per joint it is pooled over both.

    Args:
        values: a reward; per frame where it has a second axis, per joint where it has a third.
        group_size: G.
        std_floor: a group whose std is below has advantage 0: what it differs by is rounding and not merit.
        mask: frames that count; all when None.
    """
    grouped = values.unflatten(0, (-1, group_size))
    centerd = grouped - grouped.mean(dim=1, keepdim=True)
    variance = centerd.square().sum(dim=1) / (group_size - 1)
    if variance.ndim > 1:
        weight, parts = _frame_weights(values, mask)[::group_size], tuple(range(1, variance.ndim))
        variance = (variance * weight).sum(dim=parts) / weight.sum(dim=parts)
    std = variance.sqrt()
    differs = (std >= std_floor).view(-1, *[1] * (grouped.ndim - 1))
    scale = std.view_as(differs).where(differs, 1.0)
    return (centerd / scale).where(differs, 0.0).flatten(0, 1), std


def advantages(
    rewards: Mapping[str, Float[Tensor, " samples *parts"]],
    group_size: int,
    *,
    weights: Sequence[float] | None = None,
    aggregation: str = "mean",
    std_floor: float = 1e-4,
    clip: float | None = None,
    mask: Bool[Tensor, "samples frames"] | None = None,
) -> tuple[Float[Tensor, " samples *parts"], dict[str, Float[Tensor, " conditions"]]]:
    """One advantage out of several rewards, and each reward's std by group.

    ``mean`` normalizes each reward within its group and takes (1/K) sum_k w_k A_k (Algorithm 1); ``sum`` leaves out the
    1/K (Sec. 3.3); ``sum_then_normalize`` normalizes the weighted sum of the rewards within the group (TRL's default);
    ``normalize_then_sum`` is ``sum``, then centerd and divided by the std over the whole batch (GDPO, TRL).

    Args:
        rewards: by name, of all processes.
        group_size: G.
        weights: one a reward; 1 when None.
        aggregation: one of `AGGREGATIONS`.
        std_floor: see :func:`normalize_in_groups`; of the batch too for ``normalize_then_sum``.
        clip: largest absolute advantage; no limit when None.
        mask: frames that count, for rewards per frame or joint.
    """
    weights = [1.0] * len(rewards) if weights is None else list(weights)
    normalized = {name: normalize_in_groups(values, group_size, std_floor, mask) for name, values in rewards.items()}
    stds = {name: std for name, (_, std) in normalized.items()}
    if aggregation == "sum_then_normalize":
        total = reduce(torch.add, (weight * values for weight, values in zip(weights, rewards.values(), strict=True)))
        combined, _ = normalize_in_groups(total, group_size, std_floor, mask)
    else:
        weighted = (weight * values for weight, (values, _) in zip(weights, normalized.values(), strict=True))
        combined = reduce(torch.add, weighted)
        if aggregation == "mean":
            combined = combined / len(rewards)
        elif aggregation == "normalize_then_sum":
            # The batch is one group here; within the groups the mean is 0 already.
            combined = _normalize_over_batch(combined, std_floor, mask)
    if clip is not None:
        combined = combined.clamp(-clip, clip)
    return combined, stds


def _normalize_over_batch(values: Tensor, std_floor: float, mask: Tensor | None) -> Tensor:
    weight = _frame_weights(values, mask) if values.ndim > 1 else torch.ones_like(values)
    mean = (values * weight).sum() / weight.sum()
    std = ((values - mean).square().mul(weight).sum() / (weight.sum() - 1)).sqrt()
    return torch.where(std >= std_floor, (values - mean) / std.clamp(min=std_floor), torch.zeros_like(values))


def _frame_weights(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(values)
    return mask.to(values).view(*mask.shape, *[1] * (values.ndim - 2)).expand_as(values)


# ---- densities


def log_density(
    residual: Float[Tensor, "samples frames d_state"],
    mask: Bool[Tensor, "samples frames"],
    *,
    credit: str = "sequence",
    reduction: str = "mean",
    basis: Float[Tensor, "samples frames components"] | None = None,
    layout: StateLayout | None = None,
) -> Float[Tensor, " samples *parts"]:
    """Log density of a transition's noise, up to a constant that the policy does not change (Eq. 8).

    Args:
        residual: (x_next - mean) / std, float32.
        mask: frames that exist.
        credit: ``sequence`` reduces over the numbers of a state and its frames, ``frame`` over the numbers alone,
            ``joint`` over those of each joint (:func:`by_joint`).
        reduction: with ``sum`` it is the density itself, and the ratio the true one; with ``mean`` over the D = frames
            x numbers the ratio is the D-th root of that, and so close to 1 that a clip range of 1e-4 binds where 0.2
            never would (D = 2e4: 1e-4 is 2 nats).
        basis: only the projection of the noise onto these columns counts (see
            :func:`~motion_grpo.training.grpo.exploration.smooth_basis`); the mean is then over their coordinates.
        layout: of the state; ``joint`` needs it.
    """
    exists = mask.to(residual)
    square = _counted(residual, exists, reduction, basis).square()
    if reduction == "sum":
        # Thousands of nats: float32 would resolve their difference to 1e-3 only.
        square = square.double()
    if credit == "joint":
        return -0.5 * by_joint(square, layout, reduction) * exists[..., None]
    per_frame = square.mean(-1) if reduction == "mean" else square.sum(-1)
    per_frame = -0.5 * per_frame * exists
    if credit == "frame":
        return per_frame
    total = per_frame.sum(1)
    return total / exists.sum(1) if reduction == "mean" else total


def _counted(residual: Tensor, exists: Tensor, reduction: str, basis: Tensor | None) -> Tensor:
    if basis is None:
        return residual
    residual = basis @ (basis.mT @ residual)
    if reduction == "sum":
        return residual
    # A frame's share of K coordinates of variance 1 has variance K / frames.
    components = basis.square().sum(dim=(1, 2))
    return residual * (exists.sum(1) / components).sqrt()[:, None, None]


def by_joint(
    values: Float[Tensor, "samples frames d_state"], layout: StateLayout, reduction: str = "mean"
) -> Float[Tensor, "samples frames 22"]:
    """The mean or sum over the numbers of each body joint's rotation, behind that of all other numbers.

    So the first of the 22 stands for betas, contacts and hands, where the root would be, which the state has not.
    """
    betas, rotations, *others = values.split(list(layout.sizes.values()), dim=-1)
    parts = [torch.cat([betas, *others], dim=-1), *rotations.chunk(NUM_BODY_JOINTS, dim=-1)]
    return torch.stack([part.mean(-1) if reduction == "mean" else part.sum(-1) for part in parts], dim=-1)


def gaussian_kl(
    mean: Float[Tensor, "samples frames d_state"],
    reference: Float[Tensor, "samples frames d_state"],
    std: float,
    mask: Bool[Tensor, "samples frames"],
    reduction: str = "mean",
    basis: Float[Tensor, "samples frames components"] | None = None,
) -> Float[Tensor, " samples"]:
    """KL divergence of two transitions of equal std, (m - m_ref)^2 / (2 std^2): exact, nothing is estimated.

    Reduced like :func:`log_density`, ``mean`` being nats per number of the state; with a ``basis`` it is the divergence
    of what counts there.
    """
    difference = _counted((mean - reference) / std, mask.to(mean), reduction, basis)
    total = 0.5 * (difference.square() * mask[..., None]).sum(dim=(1, 2))
    return total / (mask.sum(1) * mean.shape[-1]) if reduction == "mean" else total


# ---- objective


def clipped_loss(
    ratio: Float[Tensor, " samples *parts"],
    advantage: Float[Tensor, " samples *parts"],
    mask: Bool[Tensor, "samples frames"],
    eps_low: float,
    eps_high: float,
) -> Float[Tensor, " samples"]:
    """-min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A), averaged over frames and joints if it has any."""
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - eps_low, 1 + eps_high) * advantage)
    if loss.ndim == 1:
        return loss
    if loss.ndim == 3:
        loss = loss.mean(dim=2)
    exists = mask.to(loss)
    return (loss * exists).sum(1) / exists.sum(1)


def is_clipped(
    ratio: Float[Tensor, " samples *parts"],
    advantage: Float[Tensor, " samples *parts"],
    eps_low: float,
    eps_high: float,
) -> Bool[Tensor, " samples *parts"]:
    """Where the objective has no gradient: it has gone far enough in the direction that the advantage asks for."""
    return ((ratio < 1 - eps_low) & (advantage < 0)) | ((ratio > 1 + eps_high) & (advantage > 0))


def step_weights(transitions: Sequence[Transition], trained: Sequence[int], kind: str = "raw") -> list[float]:
    """Weight of each trained transition in the objective.

    The score of a transition grows with k / std, k the weight of the predicted clean state in its mean; over a rollout
    that runs over two orders of magnitude, so that under ``raw``, the paper's, only the late steps learn. ``even``
    weights by std / k, scaled to a mean of 1.
    """
    if kind == "raw":
        return [1.0] * len(trained)
    even = [transitions[k].std / transitions[k].clean_weight for k in trained]
    return [weight * len(even) / sum(even) for weight in even]
