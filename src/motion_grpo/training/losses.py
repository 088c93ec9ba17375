"""Training losses: EgoAllo's on the clean state, and geometric ones through forward kinematics."""

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from motion_grpo.body import FOOT_JOINTS, WRIST_JOINTS, Skeleton
from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.trajectory.head_poses import HeadPoses

MODALITY_WEIGHTS = {"betas": 0.1, "body_rotmats": 1.0, "contacts": 0.1, "hand_rotmats": 0.01}
"""EgoAllo's weights of the modalities."""
NOISE_WEIGHTINGS = ("uniform", "egoallo")
"""By what the loss of a noise level counts."""
_MIN_HAND_FRAMES = 256


@dataclass(frozen=True)
class GeometricWeights:
    """Weights of the losses through forward kinematics; 0 leaves a term out."""

    position: float = 0.0
    """Mean distance of the 22 joints, per meter."""
    velocity: float = 0.0
    """Mean velocity error of the 22 joints, per m/s."""
    foot_contact: float = 0.0
    """Mean speed of ankles and toe bases while the recording has them on the ground, per m/s."""

    wrist: float = 0.0
    """Mean distance of the wrists that the condition shows, per meter; adds to ``position``."""

    def __bool__(self) -> bool:
        return any((self.position, self.velocity, self.foot_contact, self.wrist))


def noise_level_weights(alphas_cumprod: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
    """EgoAllo's weight of each noise level 1..1000: the signal-to-noise ratio scaled into [0.01, 1]."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr / snr[0] * 0.99 + 0.01


def level_weights(weighting: str, alphas_cumprod: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
    """The weight of each noise level: EgoAllo's, or 1 (:data:`NOISE_WEIGHTINGS`).

    Raises:
        ValueError: an unknown weighting.
    """
    if weighting not in NOISE_WEIGHTINGS:
        raise ValueError(f"noise_weighting is {weighting!r}; choose 'egoallo' or 'uniform'.")
    return noise_level_weights(alphas_cumprod) if weighting == "egoallo" else torch.ones_like(alphas_cumprod)


def denoising_loss(
    predicted: Float[Tensor, "batch frames d_state"],
    target: Float[Tensor, "batch frames d_state"],
    layout: StateLayout,
    weight: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch frames"],
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Squared error on the clean state (MotionGRPO, Eq. 3; EgoAllo's weighting of modalities, betas and hands).

    Args:
        predicted: network output, packed, rotations not projected.
        target: clean state, packed.
        weight: of each row, from :func:`noise_level_weights`.
        mask: True for frames that exist.

    Returns:
        The loss and its terms by modality, before the modality weights.
    """
    sizes = list(layout.sizes.values())
    count = mask.sum()
    terms = {}
    for name, x, x0 in zip(layout.sizes, predicted.split(sizes, -1), target.split(sizes, -1), strict=True):
        error = (x - x0).square()
        frames, total = mask, count
        if name == "betas":
            error = error / torch.arange(1, error.shape[-1] + 1, device=error.device)
        if name == "hand_rotmats":
            # Only sequences whose hands were tracked say anything about hands; few frames must not blow up the mean.
            moving = ((x0 - x0[:, :1]).abs().sum(-1) * mask).sum(-1) > 1e-5
            frames = mask & moving[:, None]
            total = frames.sum().clamp(min=_MIN_HAND_FRAMES)
        terms[name] = ((error.mean(-1) * frames).sum(-1) * weight).sum() / total
    return reduce(torch.add, (MODALITY_WEIGHTS[name] * term for name, term in terms.items())), terms


def geometric_loss(
    predicted: MotionState,
    joints: Float[Tensor, "batch frames 22 3"],
    contacts: Float[Tensor, "batch frames 21"],
    head: HeadPoses,
    skeleton: Skeleton,
    mask: Bool[Tensor, "batch frames"],
    weights: GeometricWeights,
    fps: float,
    seen_wrists: Bool[Tensor, "batch frames 2"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Errors of the joints once the predicted body hangs from the true head.

    They are distances and not squares: what MPJPE and MPJVE measure.

    Args:
        predicted: rotations projected.
        joints: of the recording, above a floor at z = 0, meters.
        contacts: of the recording.
        head: of the recording.
        mask: True for frames that exist.
        fps: frames per second.
        seen_wrists: where the condition shows the left and right wrist; nowhere when None.

    Returns:
        The weighted loss and its terms: position and wrist (m), velocity and foot_contact (m/s).
    """
    body = skeleton.place_by_head(predicted.betas, predicted.body_rotmats, head.R_world_cpf, head.p_world_cpf)
    error = body.joints - joints
    pairs = mask[:, 1:] & mask[:, :-1]
    feet = list(FOOT_JOINTS)
    foot_speed = _norm(body.joints[:, 1:, feet] - body.joints[:, :-1, feet]) * fps
    planted = contacts[:, 1:, [j - 1 for j in feet]] * contacts[:, :-1, [j - 1 for j in feet]]
    distance = _norm(error)
    terms = {
        "position": (distance.mean(-1) * mask).sum() / mask.sum(),
        "velocity": (_norm(error[:, 1:] - error[:, :-1]).mean(-1) * pairs).sum() * fps / pairs.sum(),
        "foot_contact": ((foot_speed * planted).mean(-1) * pairs).sum() / pairs.sum(),
    }
    if seen_wrists is not None:
        seen = seen_wrists & mask[..., None]
        terms["wrist"] = (distance[..., list(WRIST_JOINTS)] * seen).sum() / (2 * mask.sum())
    return reduce(torch.add, (getattr(weights, name) * term for name, term in terms.items())), terms


def _norm(x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    # The gradient of a plain norm is undefined at 0, which the head joint always is at.
    return (x.square().sum(-1) + 1e-10).sqrt()


def sample_noise_levels(
    count: int,
    num_levels: int,
    *,
    favour_high: bool,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Int[Tensor, " count"]:
    """Noise levels 1..num_levels: uniform (Eq. 3), or with a density that grows linearly with the level.

    The latter spends more of the training where a sampler of few steps spends its steps.
    """
    u = torch.rand(count, generator=generator, device=device)
    return ((u.sqrt() if favour_high else u) * num_levels).ceil().clamp(1, num_levels).long()


def info_nce(scores: Float[Tensor, "batch motions"], temperature: float) -> Float[Tensor, ""]:
    """Eq. 9: cross-entropy of picking the recorded motion, which is the first of each row, by its score."""
    target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return F.cross_entropy(scores / temperature, target)


def ranking_loss(scores: Float[Tensor, "batch motions"], temperature: float) -> Float[Tensor, ""]:
    """Asks for scores that fall along each row: InfoNCE of every motion against those after it, averaged.

    The negative log-likelihood of the order under Plackett and Luce's model.
    """
    return torch.stack([info_nce(scores[:, first:], temperature) for first in range(scores.shape[1] - 1)]).mean()
