"""Smooth noise on the head's position, for exploration (MotionGRPO, Sec. 3.5.2, Eq. 16)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.trajectory.head_poses import HeadPoses

FREQUENCY = 1.875
"""Cells per second: 4 in 64 frames at 30 fps, 8 in the paper's window of 128."""


def perlin_noise(
    num_frames: int,
    generators: Sequence[torch.Generator],
    *,
    frequency: float = FREQUENCY,
    octaves: int = 1,
    persistence: float = 0.5,
    channels: int = 3,
    fps: float = 30.0,
) -> Float[Tensor, "rows frames channels"]:
    """Improved Perlin noise in one dimension, time: one row for each generator, all channels independent.

    Lattice points lie ``1 / frequency`` seconds apart and carry slopes drawn uniformly from [-1, 1]; between two of
    them the lines through both are blended by 6u^5 - 15u^4 + 10u^3 (K. Perlin, "Improving Noise", 2002), so the noise
    has two continuous derivatives. It is zero at every lattice point; the lattice of every channel is shifted by a
    random part of a cell, or all rows would be zero in the same frames.

    Unit amplitude: the values are scaled by the largest that the slopes allow, so they lie in [-1, 1] and reach it only
    between opposite slopes of size 1. The standard deviation of one octave is 0.28.

    A row depends on its generator and the settings alone. A longer noise begins with the shorter one.

    Args:
        num_frames: T.
        generators: on the CPU; each is advanced. The result is on the CPU.
        frequency: lattice cells per second of the first octave; the length of the noise does not change it.
        octaves: how many noises are added, each with twice the frequency of the one before.
        persistence: size of each octave over that of the one before.
        channels: independent noises of a row, x, y and z for instance.
        fps: frames per second.

    Raises:
        ValueError: no frequency, octave or generator, or a negative persistence.
    """
    if not (frequency > 0 and fps > 0 and octaves >= 1 and persistence >= 0 and generators):
        raise ValueError(
            "Perlin noise needs frequency > 0, fps > 0, octaves >= 1, persistence >= 0 and at least one generator; got "
            f"frequency {frequency}, fps {fps}, octaves {octaves}, persistence {persistence} and {len(generators)} "
            "generators."
        )
    octave = torch.arange(octaves)
    cells_per_frame = frequency / fps * 2.0**octave
    points = int((num_frames - 1) * float(cells_per_frame[-1])) + 4
    # Points come last in the order of drawing, so that more frames only draw more.
    draws = torch.stack([torch.rand(points + 1, octaves, channels, generator=g) for g in generators])
    phase, slopes = draws[:, :1], 2 * draws[:, 1:] - 1
    place = phase + (torch.arange(num_frames)[:, None] * cells_per_frame)[..., None]
    left = place.floor()
    u = place - left
    index = left.long()
    fade = u * u * u * (u * (6 * u - 15) + 10)
    before, after = slopes.gather(1, index) * u, slopes.gather(1, index + 1) * (u - 1)
    weight = persistence**octave
    # Halfway between slopes 1 and -1 the blend of the two lines is at its maximum, 1/2.
    return 2 * (torch.lerp(before, after, fade) * weight[:, None]).sum(dim=2) / weight.sum()


def perturb_head(head: HeadPoses, offsets: Float[Tensor, "*batch offsets 3"], scale: float) -> HeadPoses:
    """The head moved by ``scale * offsets`` (Eq. 16), its steps with it; orientations stay.

    Args:
        head: clean poses.
        offsets: world axes; the first is that of the frame before the window, which the first step starts from, so T
            frames take T + 1 offsets.
        scale: lambda, meters where the offsets have unit amplitude; 0 returns the head as it is.
    """
    if scale == 0:
        return head
    moved = scale * offsets
    # A step is told in the axes of the frame that it starts from: R_prev_world = R_prev_cpf R_cpf_world.
    R_prev_world = head.R_prev_cpf @ head.R_world_cpf.mT
    step = (R_prev_world @ moved.diff(dim=-2)[..., None]).squeeze(-1)
    return head._replace(p_world_cpf=head.p_world_cpf + moved[..., 1:, :], p_prev_cpf=head.p_prev_cpf + step)
