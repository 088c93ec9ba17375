"""From a true motion to what a real device would have seen of it: the augmentation of the condition."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import HEAD, WRIST_JOINTS, Skeleton
from motion_grpo.data.batches import TrainingBatch
from motion_grpo.geometry.rotations import interpolate_rotations
from motion_grpo.models.conditioning import WristPoses
from motion_grpo.motion import FPS, MotionState
from motion_grpo.trajectory.head_poses import HeadPoses


@dataclass(frozen=True)
class DeviceErrors:
    """How far a tracked head is from the true one; standard deviations of normal draws, 0 leaves an error out."""

    head_degrees: float = 0.0
    """Constant turn of the CPF about each of its axes: glasses sit differently on every nose."""
    head_metres: float = 0.0
    """Constant offset of the CPF along each of its axes."""
    floor_metres: float = 0.0
    """Constant error of the floor's height; the body is judged in the true world all the same."""
    jitter_metres: float = 0.0
    """Of each frame, along each axis; rotations get 0.1 degrees a millimetre."""
    gap_probability: float = 0.0
    """Of a short loss of tracking in a window, up to half a second, which readers fill by interpolation."""
    clean_probability: float = 0.25
    """Of a window without any of these errors."""
    wrist_metres: float = 0.01
    """Constant offset of a wrist along each axis; it is turned by 0.3 degrees a millimetre about each axis too."""


class WristPatterns(NamedTuple):
    """Shares of the windows by how much of the wrists is seen; what is left to 1 sees neither."""

    both: float = 0.0
    """Both wrists in every frame."""
    one: float = 0.0
    """One wrist, in every frame or in bursts."""
    bursts: float = 0.0
    """Both, each in bursts of about a second."""


class Observation(NamedTuple):
    """What the network is told, and what it should answer."""

    head: HeadPoses
    """Measured, above the measured floor: the condition."""
    wrists: WristPoses
    body_measures: Float[Tensor, "batch frames 3"]
    """Of the true body, meters."""
    body_known: Bool[Tensor, "batch frames"]
    anchor: HeadPoses
    """What the predicted body hangs from, in the true world: the measured head without jitter and gaps."""
    state: MotionState
    """The true state, its head joint turned as the device sits, so that under ``anchor`` the body stands upright."""


def observe(
    truth: TrainingBatch,
    skeleton: Skeleton,
    errors: DeviceErrors | None = None,
    wrists: WristPatterns | None = None,
    body_known_probability: float = 0.0,
) -> Observation:
    """Draws errors for every window from the global generator.

    A turn of the device is the head joint's own: the body that hangs from the turned head is the true one. An offset
    moves the body with it. An error of the floor changes the condition alone.
    """
    errors = errors or DeviceErrors()
    R, p = _with_previous(truth.head)
    batch, device = len(R), R.device
    dirty = (torch.rand(batch, device=device) >= errors.clean_probability).float()

    def normal(std: float, *shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=device) * std * dirty.view(batch, *[1] * len(shape))

    R_cpf_device = _rotation(normal(errors.head_degrees, 1, 3))
    anchor_R = R @ R_cpf_device
    anchor_p = p + (R @ normal(errors.head_metres, 1, 3)[..., None]).squeeze(-1)
    state = truth.state._replace(body_rotmats=_turn_head(truth.state.body_rotmats, R_cpf_device))

    frames = R.shape[1]
    measured_R = anchor_R @ _rotation(normal(100 * errors.jitter_metres, frames, 3))
    measured_p = anchor_p + normal(errors.jitter_metres, frames, 3)
    gaps = (torch.rand(batch, device=device) < errors.gap_probability) & (dirty > 0)
    measured_R, measured_p = _bridge_gaps(measured_R, measured_p, gaps)
    p_floor = measured_p.clone()
    p_floor[..., 2] += normal(errors.floor_metres, 1)
    head = HeadPoses.from_world(measured_R, p_floor).window(1, frames)
    return Observation(
        head=head,
        wrists=_observe_wrists(truth, measured_R[:, 1:], measured_p[:, 1:], wrists or WristPatterns(), errors),
        body_measures=skeleton.measures(truth.state.betas[:, :1]).expand(*truth.mask.shape, -1),
        body_known=(torch.rand(batch, 1, device=device) < body_known_probability).expand(truth.mask.shape),
        anchor=HeadPoses.from_world(anchor_R, anchor_p).window(1, frames),
        state=state,
    )


def _with_previous(head: HeadPoses) -> tuple[Float[Tensor, "batch times 3 3"], Float[Tensor, "batch times 3"]]:
    """The poses, preceded by the one that the first step starts from: one time more than frames."""
    R_before = head.R_world_cpf[:, :1] @ head.R_prev_cpf[:, :1].mT
    p_before = head.p_world_cpf[:, :1] - (R_before @ head.p_prev_cpf[:, :1, :, None]).squeeze(-1)
    return torch.cat([R_before, head.R_world_cpf], 1), torch.cat([p_before, head.p_world_cpf], 1)


def _rotation(degrees: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    return roma.rotvec_to_rotmat(torch.deg2rad(degrees))


def _turn_head(
    body_rotmats: Float[Tensor, "batch frames 21 3 3"], R_cpf_device: Float[Tensor, "batch 1 3 3"]
) -> Float[Tensor, "batch frames 21 3 3"]:
    turned = body_rotmats.clone()
    turned[:, :, HEAD - 1] = body_rotmats[:, :, HEAD - 1] @ R_cpf_device
    return turned


def _bridge_gaps(
    R: Float[Tensor, "batch frames 3 3"], p: Float[Tensor, "batch frames 3"], gaps: Bool[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch frames 3 3"], Float[Tensor, "batch frames 3"]]:
    """One gap of up to half a second in each row of ``gaps``, filled as readers fill it: by interpolation."""
    batch, frames = p.shape[:2]
    length = 2 + (torch.rand(batch, device=p.device) * FPS / 2).long()
    first = (torch.rand(batch, device=p.device) * (frames - length - 1).clamp(min=1)).long()
    last = (first + length).clamp(max=frames - 1)
    place = torch.arange(frames, device=p.device)
    share = ((place - first[:, None]) / (last - first)[:, None]).clamp(0, 1)
    inside = gaps[:, None] & (place >= first[:, None]) & (place <= last[:, None])
    row = torch.arange(batch, device=p.device)
    bridged_p = torch.lerp(p[row, first][:, None], p[row, last][:, None], share[..., None])
    ends = (R[row, end][:, None].expand_as(R) for end in (first, last))
    bridged_R = interpolate_rotations(*ends, share)
    return torch.where(inside[..., None, None], bridged_R, R), torch.where(inside[..., None], bridged_p, p)


def _observe_wrists(
    truth: TrainingBatch,
    R_world_cpf: Float[Tensor, "batch frames 3 3"],
    p_world_cpf: Float[Tensor, "batch frames 3"],
    patterns: WristPatterns,
    errors: DeviceErrors,
) -> WristPoses:
    batch, frames = truth.mask.shape
    device = p_world_cpf.device
    draw = torch.rand(batch, device=device)
    both, one, bursts = patterns
    always = draw < both
    single = (draw >= both) & (draw < both + one)
    in_bursts = (draw >= both + one) & (draw < both + one + bursts)
    # A burst or a pause ends in any frame with a chance of one in a second's frames.
    switches = torch.rand(batch, frames, 2, device=device) < 1 / FPS
    switches[:, 0] = torch.rand(batch, 2, device=device) < 0.5
    burst = switches.cumsum(1) % 2 == 1
    side = torch.rand(batch, device=device) < 0.5
    is_side = torch.stack([side, ~side], dim=-1)[:, None]
    held = (torch.rand(batch, device=device) < 0.5)[:, None, None] | burst
    visible = always[:, None, None] | (single[:, None, None] & is_side & held) | (in_bursts[:, None, None] & burst)

    noise = errors.wrist_metres * math.sqrt(0.5)  # half of the variance stays, half is new in every frame
    steady, fresh = torch.randn(2, batch, 1, 2, 3, device=device), torch.randn(2, batch, frames, 2, 3, device=device)
    offset, turn = noise * (steady + 0.3 * fresh)
    return WristPoses.from_world(
        truth.world_rotmats[:, :, list(WRIST_JOINTS)] @ _rotation(300 * turn),
        truth.joints[:, :, list(WRIST_JOINTS)] + offset,
        visible,
        HeadPoses(R_world_cpf, p_world_cpf, R_world_cpf, p_world_cpf),
    )
