"""Diffusion-DPO's objective for a network that predicts the clean state (Wallace et al., CVPR 2024, Eq. 14)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from motion_grpo.motion import StateLayout
from motion_grpo.training.losses import MODALITY_WEIGHTS


def state_error(
    predicted: Float[Tensor, "batch frames d_state"],
    target: Float[Tensor, "batch frames d_state"],
    layout: StateLayout,
    mask: Bool[Tensor, "batch frames"],
) -> Float[Tensor, " batch"]:
    """Squared error of a clean state: a mean over frames and each modality's numbers, with EgoAllo's weights."""
    sizes = list(layout.sizes.values())
    parts = zip(layout.sizes, predicted.split(sizes, -1), target.split(sizes, -1), strict=True)
    per_frame = torch.stack([MODALITY_WEIGHTS[name] * (x - x0).square().mean(-1) for name, x, x0 in parts]).sum(0)
    return torch.where(mask, per_frame, 0.0).sum(-1) / mask.sum(-1)


def dpo_loss(
    errors: Mapping[str, Float[Tensor, " pairs"]],
    reference: Mapping[str, Float[Tensor, " pairs"]],
    weight: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, " pairs"]]:
    """-log sigmoid of the margin, and the margin of each pair.

    The margin is -beta / 2 times the weight times how much the error of the winner grew against the reference, less how
    much that of the loser did. Equal models have the margin 0 and the loss log 2.

    Args:
        errors: of the policy, for the ``winner`` and the ``loser`` under the same noise.
        reference: likewise of the reference.
        weight: of each pair's noise level.
        beta: how fast the loss saturates: it holds the policy near the reference.
    """
    winner, loser = (errors[name] - reference[name] for name in ("winner", "loser"))
    margin = -0.5 * beta * weight * (winner - loser)
    return -F.logsigmoid(margin).mean(), margin
