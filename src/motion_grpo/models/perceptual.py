"""The perceptual model: how plausible a motion is, and how well it goes with the trajectory of the head."""

import math
from dataclasses import dataclass

import roma
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin, get_parameter_dtype
from diffusers.utils import BaseOutput
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from motion_grpo.body import NUM_BODY_AND_ROOT, NUM_BODY_JOINTS, PARENTS
from motion_grpo.geometry.rotations import heading, matrix_to_wxyz, wxyz_to_matrix
from motion_grpo.models.loading import MotionModelMixin
from motion_grpo.models.transformer import rotate

_QUATERNION_TOLERANCE = 1e-2
_BONE_TOLERANCE = 0.05


def perceptual_inputs(
    body_rotmats: Float[Tensor, "*batch frames 21 3 3"],
    joints: Float[Tensor, "*batch frames 22 3"],
    R_world_cpf: Float[Tensor, "*batch frames 3 3"],
    p_world_cpf: Float[Tensor, "*batch frames 3"],
) -> tuple[Float[Tensor, "*batch frames 21 7"], Float[Tensor, "*batch frames 7"]]:
    """Body and head as :class:`MotionPerceptualModel` wants them (Sec. 3.4.1: N = 21 joints, D = 7).

    Args:
        body_rotmats: rotation of the SMPL-H joints 1-21 relative to their parents.
        joints: world positions of the SMPL-H joints 0-21 above a floor at z = 0, meters.
        R_world_cpf: orientation of the head's central pupil frame.
        p_world_cpf: its position, meters.

    Returns:
        Local rotation (wxyz) and world position of each body joint; wxyz + xyz of the head.
    """
    body = torch.cat([matrix_to_wxyz(body_rotmats), joints[..., 1:, :]], dim=-1)
    return body, torch.cat([matrix_to_wxyz(R_world_cpf), p_world_cpf], dim=-1)


@dataclass
class MotionPerceptualModelOutput(BaseOutput):
    """What the perceptual model says of motions."""

    score: Float[Tensor, " batch"]
    """The score s of Eq. 10, one a motion: 0 (made up) to 1 (real), no unit, float32."""


class MotionPerceptualModel(MotionModelMixin, ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Scores a motion given the head trajectory, 0 (made up) to 1 (real) (MotionGRPO, Sec. 3.4.1 and Appendix C).

    Body and head are embedded to one feature per token and joint each; cross-attention fuses them; blocks of MLP,
    attention over joints and attention over time follow (after DSTformer); an MLP and a sigmoid give the score.

    What the paper leaves open is decided here. A token holds ``frames_per_token`` frames and the first of the next
    token, so that every step between frames lies within some token. It is expressed in the place and heading of the
    head at its first frame: neither where in the world nor at which heading a motion happens can reach the score, and a
    long walk looks the same at its end as at its beginning. Heights stay heights over the floor. Beside its place in
    this frame a joint is given its place relative to the head at the same moment: the difference of the two inputs, but
    one of centimeters between two of meters. Within a token the
    frames are turned into their discrete cosine transform, still a linear map of the frames, so that millimeters of
    jitter are not drowned by meters of travel once each number is divided by its spread over real motion
    (:meth:`set_input_statistics`); an asinh keeps what is far outside of that spread in reach.

    Args:
        d_latent: width d (paper: 1024).
        num_blocks: B (paper: 5).
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over d.
        frames_per_token: frames that share a token; 1 is the paper's.
        dropout_p: dropout of attention and MLP, in training only.
        floor_clearance: tell every joint, beside its own height, that of the body's lowest joint in the same frame. It
            hardly varies while somebody stands on the floor, so a centimetre of hovering stands out; in the heights of
            feet that step it is a fraction of their spread. Beyond the paper.

    Raises:
        ValueError: ``d_latent`` is not divisible by twice ``num_heads``.
    """

    _shipped_as = "perceptual"
    _supports_gradient_checkpointing = True
    _no_split_modules = ["_Block"]  # noqa: RUF012  (diffusers reads this name)
    _repeated_blocks = ["_Block"]  # noqa: RUF012  (likewise)

    @register_to_config
    def __init__(
        self,
        d_latent: int = 1024,
        num_blocks: int = 5,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        frames_per_token: int = 1,
        dropout_p: float = 0.0,
        floor_clearance: bool = False,
    ) -> None:
        super().__init__()
        if d_latent % (2 * num_heads):
            raise ValueError(f"d_latent {d_latent} must be divisible by twice num_heads {num_heads}.")
        d_joint, d_head = (10 + floor_clearance) * (frames_per_token + 1), 7 * (frames_per_token + 1)
        for name, shape in (("joint", (NUM_BODY_JOINTS, d_joint)), ("head", (d_head,))):
            self._register_statistic(f"{name}_mean", torch.zeros(shape))
            self._register_statistic(f"{name}_std", torch.ones(shape))
        self.embed_body = _KeypointLinear(d_joint, d_latent)
        self.embed_head = nn.Linear(d_head, NUM_BODY_JOINTS * d_latent)
        self.fuse_norm_body, self.fuse_norm_head = nn.LayerNorm(d_latent), nn.LayerNorm(d_latent)
        self.fuse = _Attention(d_latent, num_heads, dropout_p, rotary=True)
        self.blocks = nn.ModuleList(_Block(d_latent, num_heads, mlp_ratio, dropout_p) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(d_latent)
        self.decoder = nn.Sequential(nn.Linear(NUM_BODY_JOINTS * d_latent, d_latent), nn.GELU(), nn.Linear(d_latent, 1))
        self.gradient_checkpointing = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; the statistics are float32 whatever that is."""
        return get_parameter_dtype(self.decoder)

    def forward(
        self,
        joints: Float[Tensor, "batch frames joints channels"],
        head: Float[Tensor, "batch head_frames head_channels"],
        mask: Bool[Tensor, "batch mask_frames"] | None = None,
        return_dict: bool = True,
    ) -> MotionPerceptualModelOutput | tuple[Float[Tensor, " batch"]]:
        """The score s of Eq. 10, float32.

        Args:
            joints: (batch, frames, 21, 7), local rotation (wxyz) and world position (meters, floor at z = 0) of the
                SMPL-H joints 1-21; see :func:`perceptual_inputs`.
            head: (batch, frames, 7), pose of the central pupil frame, wxyz and meters.
            mask: (batch, frames), True for frames that exist, which come first in a row; None when all do.
            return_dict: False returns the output's fields as a tuple.

        Raises:
            ValueError: shapes that do not fit, rows without a frame, quaternions that are not of unit length, or
                joints in another order than SMPL-H's. Values are not looked at while compiling.
        """
        _check_shapes(joints, head, mask)
        if not torch.compiler.is_compiling():
            _check_values(joints, head, mask)
            if mask is not None and mask.all():
                mask = None  # attention is faster without one
        tokens = self._tokens(joints)
        if mask is None:
            last = torch.full((len(joints),), joints.shape[1] - 1, device=joints.device)
            token_mask = None
        else:
            last = mask.sum(1) - 1
            token_mask = tokens[:, 0] <= last[:, None]
        # bfloat16 would drown millimeters.
        with torch.autocast(joints.device.type, enabled=False):
            body, head = self._features(joints.float(), head.float(), tokens, last)
            body = _standardize(body, self.joint_mean, self.joint_std).to(self.dtype)
            head = _standardize(head, self.head_mean, self.head_std).to(self.dtype)
        F_body, F_head = self.embed_body(body), self.embed_head(head)
        F_head = F_head.unflatten(-1, (NUM_BODY_JOINTS, -1))
        x = F_body + _over_time(self.fuse, self.fuse_norm_body(F_body), self.fuse_norm_head(F_head), token_mask)
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, token_mask)
            else:
                x = block(x, token_mask)
        x = self.norm(x)
        if token_mask is None:
            pooled = x.mean(1)
        else:
            weight = token_mask[..., None, None].to(x.dtype)
            pooled = (x * weight).sum(1) / weight.sum(1)
        score = torch.sigmoid(self.decoder(pooled.flatten(1)).squeeze(-1).float())
        return MotionPerceptualModelOutput(score) if return_dict else (score,)

    @torch.no_grad()
    def set_input_statistics(
        self,
        joints: Float[Tensor, "batch frames 21 7"],
        head: Float[Tensor, "batch frames 7"],
        mask: Bool[Tensor, "batch frames"],
    ) -> None:
        """Stores mean and spread of every input over a sample of real motion."""
        tokens, last = self._tokens(joints), mask.sum(1) - 1
        body, head = self._features(joints, head, tokens, last)
        # Tokens that hold padded frames stand still there.
        full = tokens[:, -1] <= last[:, None]
        for name, values in (("joint", body), ("head", head)):
            values = values[full].double()
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            # What never moves in the sample may do so elsewhere: half a millimetre or half a milliradian is the least.
            getattr(self, f"{name}_std").copy_(values.std(0).clamp(min=5e-4))

    def _tokens(self, joints: Float[Tensor, "batch frames 21 7"]) -> Int[Tensor, "tokens size"]:
        """Frames of each token, and the first of the next."""
        size = self.config.frames_per_token
        first = torch.arange(0, joints.shape[1], size, device=joints.device)
        return first[:, None] + torch.arange(size + 1, device=joints.device)

    def _features(
        self,
        joints: Float[Tensor, "batch frames 21 7"],
        head: Float[Tensor, "batch frames 7"],
        tokens: Int[Tensor, "tokens size"],
        last: Int[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch tokens 21 d_joint"], Float[Tensor, "batch tokens d_head"]]:
        """Cosine transform over a token's frames of what they hold, seen from the head at the first of them."""
        index = tokens.minimum(last[:, None, None])
        row = torch.arange(len(joints), device=joints.device)[:, None, None]
        joints, head = joints[row, index], head[row, index]
        origin = head[:, :, :1]
        yaw = heading(wxyz_to_matrix(origin[..., :4]))
        place = origin[..., 4:6]
        turn = torch.stack([torch.cos(yaw / 2), torch.zeros_like(yaw), torch.zeros_like(yaw), -torch.sin(yaw / 2)], -1)
        head = torch.cat([_upper(_multiply(turn, head[..., :4])), _seen_from(place, yaw, head[..., 4:])], dim=-1)
        positions = _seen_from(place[..., None, :], yaw[..., None], joints[..., 4:])
        from_head = positions - head[:, :, :, None, 4:]
        channels = [_upper(joints[..., :4]), positions, from_head]
        if self.config.floor_clearance:
            channels.append(positions[..., 2:].amin(-2, keepdim=True).expand_as(positions[..., 2:]))
        joints = torch.cat(channels, dim=-1)
        cosines = _cosine_transform(tokens.shape[1]).to(joints.device)
        joints = torch.einsum("kf,btfjc->btjkc", cosines, joints).flatten(-2)
        return joints, torch.einsum("kf,btfc->btkc", cosines, head).flatten(-2)


class _KeypointLinear(nn.Module):
    """A linear layer of its own for every joint."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(NUM_BODY_JOINTS, d_in, d_out).uniform_(-1, 1) / math.sqrt(d_in))
        self.bias = nn.Parameter(torch.zeros(NUM_BODY_JOINTS, d_out))

    def forward(self, x: Float[Tensor, "batch tokens 21 d_in"]) -> Float[Tensor, "batch tokens 21 d_out"]:
        return torch.einsum("btji,jio->btjo", x, self.weight) + self.bias


class _Attention(nn.Module):
    """Scaled dot-product attention along the second last axis."""

    def __init__(self, d: int, num_heads: int, dropout_p: float, rotary: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout_p, self.rotary = num_heads, dropout_p, rotary
        self.query, self.key_value, self.output = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(
        self,
        x: Float[Tensor, "rows tokens d"],
        source: Float[Tensor, "rows tokens d"],
        mask: Bool[Tensor, "rows tokens"] | None,
    ) -> Float[Tensor, "rows tokens d"]:
        parts = (self.query(x), *self.key_value(source).chunk(2, dim=-1))
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        mask = None if mask is None else mask[:, None, None, :]
        dropout_p = self.dropout_p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        return self.output(y.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """MLP, attention over joints, attention over time, each on a normalized input and added to it."""

    def __init__(self, d: int, num_heads: int, mlp_ratio: int, dropout_p: float) -> None:
        super().__init__()
        self.mlp_norm, self.spatial_norm, self.temporal_norm = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(
            nn.Linear(d, mlp_ratio * d), nn.GELU(), nn.Dropout(dropout_p), nn.Linear(mlp_ratio * d, d)
        )
        self.spatial = _Attention(d, num_heads, dropout_p, rotary=False)
        self.temporal = _Attention(d, num_heads, dropout_p, rotary=True)

    def forward(
        self, x: Float[Tensor, "batch tokens 21 d"], mask: Bool[Tensor, "batch tokens"] | None
    ) -> Float[Tensor, "batch tokens 21 d"]:
        x = x + self.mlp(self.mlp_norm(x))
        y = self.spatial_norm(x).flatten(0, 1)
        x = x + self.spatial(y, y, None).view_as(x)
        y = self.temporal_norm(x)
        return x + _over_time(self.temporal, y, y, mask)


def _over_time(
    attention: _Attention, x: Tensor, source: Tensor, mask: Bool[Tensor, "batch tokens"] | None
) -> Float[Tensor, "batch tokens 21 d"]:
    rows, source = (y.transpose(1, 2).flatten(0, 1) for y in (x, source))
    mask = None if mask is None else mask.repeat_interleave(NUM_BODY_JOINTS, dim=0)
    return attention(rows, source, mask).unflatten(0, (len(x), -1)).transpose(1, 2)


def _cosine_transform(size: int) -> Float[Tensor, "size size"]:
    """Orthonormal DCT-II; row k is the k-th frequency."""
    place = (torch.arange(size).double() + 0.5) * math.pi / size
    transform = torch.cos(torch.arange(size)[:, None] * place) * math.sqrt(2 / size)
    transform[0] /= math.sqrt(2)
    return transform.float()


def _standardize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    x = (x - mean) / std
    # asinh; torch's own is not vectorised on CPUs and takes as long as an attention layer.
    size, square = x.abs(), x * x
    return torch.copysign(torch.log1p(size + square / (1 + (square + 1).sqrt())), x)


def _multiply(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Product of quaternions (wxyz)."""
    return roma.quat_xyzw_to_wxyz(roma.quat_product(roma.quat_wxyz_to_xyzw(a), roma.quat_wxyz_to_xyzw(b)))


def _upper(wxyz: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The one of q and -q, which are one rotation, that has w >= 0."""
    return torch.where(wxyz[..., :1] < 0, -wxyz, wxyz)


def _seen_from(
    place: Float[Tensor, "*#batch 2"], yaw: Float[Tensor, "*#batch"], points: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Points moved by -place in the plane and turned by -yaw about the vertical."""
    x, y = points[..., 0] - place[..., 0], points[..., 1] - place[..., 1]
    c, s = torch.cos(yaw), torch.sin(yaw)
    return torch.stack([c * x + s * y, c * y - s * x, points[..., 2]], dim=-1)


def _check_shapes(joints: Tensor, head: Tensor, mask: Tensor | None) -> None:
    if joints.shape[2:] != (NUM_BODY_JOINTS, 7):
        raise ValueError(
            f"joints has shape {tuple(joints.shape)}; the perceptual model reads {NUM_BODY_JOINTS} joints (SMPL-H 1-21,"
            " without the root) of 7 numbers: see perceptual_inputs."
        )
    if head.shape != (*joints.shape[:2], 7):
        raise ValueError(
            f"head has shape {tuple(head.shape)} beside {joints.shape[0]} motions of {joints.shape[1]} frames; it must "
            f"be {(*joints.shape[:2], 7)}, one pose a frame."
        )
    if mask is not None and mask.shape != joints.shape[:2]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be {tuple(joints.shape[:2])}.")


def _check_values(joints: Tensor, head: Tensor, mask: Tensor | None) -> None:
    real = torch.ones(joints.shape[:2], dtype=torch.bool, device=joints.device) if mask is None else mask
    empty = ~real.any(1)
    gap = (real[:, 1:] & ~real[:, :-1]).any(1)

    def unit(q):
        return (q.norm(dim=-1) - 1).abs() <= _QUATERNION_TOLERANCE

    bad_joints = ~unit(joints[..., :4]) & real[..., None]
    bad_head = ~unit(head[..., :4]) & real
    # Only in the right order does every joint keep its distance to its parent. The root is not among them.
    child = torch.tensor([joint for joint in range(1, NUM_BODY_AND_ROOT) if PARENTS[joint] > 0], device=joints.device)
    parent = torch.tensor([PARENTS[joint] for joint in child.tolist()], device=joints.device)
    bones = (joints[..., child - 1, 4:] - joints[..., parent - 1, 4:]).norm(dim=-1)
    inside = real[..., None].to(bones.dtype)
    mean = (bones * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp(min=1)
    bends = (((bones - mean).abs() > _BONE_TOLERANCE) & real[..., None]).flatten(1).float().mean(1) > 0.01
    # One transfer to the host for all checks.
    flags = torch.stack([empty.any(), gap.any(), bad_joints.any(), bad_head.any(), bends.any()])
    if not flags.any():
        return

    def row(bad):
        return int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])

    if flags[0]:
        raise ValueError(f"Row {row(empty)} is all padding: a motion needs at least one frame; leave the row out.")
    if flags[1]:
        raise ValueError(f"The mask of row {row(gap)} has a gap; frames that exist come first, padding after them.")
    if flags[2] or flags[3]:
        bad, name = (bad_joints, "joints") if flags[2] else (bad_head, "head")
        raise ValueError(
            f"Row {row(bad)} of {name} holds quaternions (wxyz) that are not of unit length; normalize them first."
        )
    raise ValueError(
        f"Row {row(bends)} of joints has bones that change their length by more than {_BONE_TOLERANCE} m; the joints "
        "must be SMPL-H's 1-21, in its order."
    )
