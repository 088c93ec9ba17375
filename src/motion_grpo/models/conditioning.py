"""g(.): the head trajectory as features that do not change with where in the world, or at which heading, one walks."""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.geometry.rotations import heading, yaw_rotation
from motion_grpo.trajectory.head_poses import HeadPoses

Parameterization = Literal["ours", "canonicalized", "absolute", "absrel", "absrel_global_deltas"]
PARAMETERIZATIONS: tuple[str, ...] = get_args(Parameterization)
_DIMENSIONS = {"canonicalized": 12, "absolute": 12, "absrel": 24, "absrel_global_deltas": 24}


class WristPoses(NamedTuple):
    """Poses of the left and right wrist joint in the CPF, and in which frames they are known."""

    R_cpf_wrist: Float[Tensor, "*batch frames 2 3 3"]
    p_cpf_wrist: Float[Tensor, "*batch frames 2 3"]
    """Meters."""
    visible: Bool[Tensor, "*batch frames 2"]
    """Poses of other frames are ignored, whatever they hold."""

    @staticmethod
    def from_world(
        R_world_wrist: Float[Tensor, "*batch frames 2 3 3"],
        p_world_wrist: Float[Tensor, "*batch frames 2 3"],
        visible: Bool[Tensor, "*batch frames 2"],
        head: HeadPoses,
    ) -> "WristPoses":
        """Wrists as seen from the head; world and floor are those of ``head``."""
        R_cpf_world = head.R_world_cpf.mT[..., None, :, :]
        relative = p_world_wrist - head.p_world_cpf[..., None, :]
        return WristPoses(R_cpf_world @ R_world_wrist, (R_cpf_world @ relative[..., None]).squeeze(-1), visible)

    @staticmethod
    def unseen(head: HeadPoses) -> "WristPoses":
        """Neither wrist in any frame."""
        R, p = head.R_world_cpf, head.p_world_cpf
        return WristPoses(
            R.new_zeros(*R.shape[:-2], 2, 3, 3),
            p.new_zeros(*p.shape[:-1], 2, 3),
            torch.zeros(*p.shape[:-1], 2, dtype=torch.bool, device=p.device),
        )

    def hand_positions(self) -> Float[Tensor, "*batch frames 6"]:
        """EgoAllo's way to tell of them: left and right position, meters, zeros where a wrist is not visible."""
        return torch.where(self.visible[..., None], self.p_cpf_wrist, 0.0).flatten(-2)


def condition_dim(
    parameterization: Parameterization,
    canonical_rotation: bool,
    hand_positions: bool,
    octaves: int,
    *,
    wrists: bool = False,
    body_size: bool = False,
) -> int:
    """Number of features per frame: of :func:`head_features`, :func:`wrist_features` and :func:`body_features`."""
    raw = 13 + 9 * canonical_rotation if parameterization == "ours" else _DIMENSIONS[parameterization]
    encoded = 1 + 2 * octaves
    return (raw + 6 * hand_positions) * encoded + 2 * (3 * encoded + 10) * wrists + 4 * body_size


def head_features(
    head: HeadPoses,
    parameterization: Parameterization = "ours",
    *,
    canonical_rotation: bool = True,
    hand_positions: Float[Tensor, "*batch frames 6"] | None = None,
    octaves: int = 3,
) -> Float[Tensor, "*batch frames d_cond"]:
    """Features of a head trajectory (EgoAllo, Sec. 3.2 and its ablation; MotionGRPO, Eq. 6).

    ``ours`` depends only on what is the same after any translation along, and rotation about the vertical of, the
    floor: the step since the last frame (12), the height over the floor (1) and the rotation after turning the heading
    to 0 (9). ``canonicalized`` aligns to the first frame's heading and place, ``absolute`` is the pose itself,
    ``absrel`` adds the steps, ``absrel_global_deltas`` adds them, inverted, in world axes.

    Args:
        head: poses above a floor at z = 0.
        canonical_rotation: leave out the heading-free rotation of ``ours`` when False.
        hand_positions: left and right wrist relative to the CPF, meters (zeros where unknown); appended when given.
        octaves: of the Fourier encoding.
    """
    R, p, R_step, p_step = head
    if parameterization == "ours":
        parts = [_matrix_3x4(R_step, p_step), p[..., 2:]]
        if canonical_rotation:
            parts.append((_heading_to_zero(R) @ R).flatten(-2))
    elif parameterization == "canonicalized":
        R_canonical_world = _heading_to_zero(R[..., :1, :, :])
        p_canonical = (R_canonical_world @ (p - p[..., :1, :])[..., None]).squeeze(-1)
        parts = [_matrix_3x4(R_canonical_world @ R, p_canonical)]
    elif parameterization == "absolute":
        parts = [_matrix_3x4(R, p)]
    elif parameterization == "absrel":
        parts = [_matrix_3x4(R, p), _matrix_3x4(R_step, p_step)]
    else:
        step_back_world = -(R @ R_step.mT @ p_step[..., None]).squeeze(-1)
        parts = [_matrix_3x4(R, p), R_step.flatten(-2), step_back_world]
    if hand_positions is not None:
        parts.append(hand_positions)
    return fourier_encode(torch.cat(parts, dim=-1), octaves)


def wrist_features(wrists: WristPoses, octaves: int = 3) -> Float[Tensor, "*batch frames d_wrists"]:
    """Position (Fourier-encoded), rotation and visibility of both wrists; all zero where a wrist is not visible."""
    position = fourier_encode(wrists.p_cpf_wrist, octaves)
    one = torch.ones_like(position[..., :1])
    features = torch.cat([position, wrists.R_cpf_wrist.flatten(-2), one], dim=-1)
    # Not a product: what an unseen wrist holds may be NaN.
    return torch.where(wrists.visible[..., None], features, 0.0).flatten(-2)


def body_features(
    measures: Float[Tensor, "*batch frames 3"], known: Bool[Tensor, "*batch frames"]
) -> Float[Tensor, "*batch frames 4"]:
    """What is known about the wearer's size (:meth:`~motion_grpo.body.Skeleton.measures`) and whether it is."""
    features = torch.cat([measures, torch.ones_like(measures[..., :1])], dim=-1)
    return torch.where(known[..., None], features, 0.0)


def fourier_encode(x: Float[Tensor, "*batch channels"], octaves: int) -> Float[Tensor, "*batch encoded"]:
    """[x, sin(2^k x), sin(2^k x + pi/2)], the scaled inputs laid out input-major (EgoAllo's order)."""
    scaled = (x[..., None] * 2.0 ** torch.arange(octaves, device=x.device, dtype=x.dtype)).flatten(-2)
    return torch.cat([x, torch.sin(scaled), torch.sin(scaled + torch.pi / 2)], dim=-1)


def _heading_to_zero(R_world_cpf: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    return yaw_rotation(-heading(R_world_cpf))


def _matrix_3x4(R: Float[Tensor, "*batch 3 3"], p: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 12"]:
    return torch.cat([R, p[..., None]], dim=-1).flatten(-2)
