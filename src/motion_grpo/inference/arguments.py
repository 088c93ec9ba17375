"""What a pipeline call is given, checked and in one form: recordings, counts, numbers, generators."""

import math
import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motion_grpo.motion import FPS
from motion_grpo.trajectory import HeadTrajectory, load_trajectory
from motion_grpo.trajectory.checks import Origin
from motion_grpo.trajectory.plausibility import warn_if_implausible

_OF_A_CALL = Origin("array", call="pipe(HeadTrajectory.from_convention(poses, fps=30, {}))")


def as_trajectory(trajectory: object) -> HeadTrajectory:
    """A trajectory, a file of one, or poses at 30 fps as the head's trajectory.

    Raises:
        ValueError: an array that holds no poses, and as the readers say.
        FileNotFoundError: no such file.
    """
    if isinstance(trajectory, HeadTrajectory):
        return trajectory
    if isinstance(trajectory, str | os.PathLike):
        return load_trajectory(trajectory)
    poses = trajectory if isinstance(trajectory, Tensor) else np.asarray(trajectory)
    if (poses.ndim == 2 and poses.shape[1] == 7) or (poses.ndim == 3 and tuple(poses.shape[1:]) == (4, 4)):
        read = HeadTrajectory.from_convention(poses, "cpf", fps=FPS, source=_OF_A_CALL)
        warn_if_implausible(read)
        return read
    raise ValueError(
        f"An array of shape {tuple(poses.shape)} is no head trajectory; give (frames, 7) wxyz + xyz or (frames, 4, 4), "
        "or a HeadTrajectory (a list is a batch of recordings)."
    )


def check_count(name: str, value: object) -> None:
    """Raises ValueError unless this is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")


def check_number(name: str, value: object, remedy: str, *, least: float = 0.0, above: bool = False) -> None:
    """Raises ValueError unless this is a finite number of at least ``least``, or above it."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least or (above and value == least):
        raise ValueError(
            f"{name} must be a number {'above' if above else 'of at least'} {least:g}, got {value!r}; {remedy}."
        )


def one_a_recording(given: Any, count: int, what: str, shared: bool = False) -> list:
    """A list with one entry a recording; what all recordings may share is repeated.

    Raises:
        ValueError: no list, or one of another length.
    """
    if given is None or (shared and not isinstance(given, list)):
        return [given] * count
    if not isinstance(given, list) or len(given) != count:
        number = len(given) if isinstance(given, list) else "no list of"
        raise ValueError(f"{number} {what} for {count} recordings; give a list with one a recording.")
    return given


def check_generators(generator: object) -> None:
    """Raises ValueError unless this is None, a ``torch.Generator`` or a list of them."""
    for one in generator if isinstance(generator, list) else [generator]:
        if not isinstance(one, torch.Generator) and (one is not None or isinstance(generator, list)):
            raise ValueError(
                f"generator must be a torch.Generator or a list of them, got {one!r}; a seed becomes one by "
                "torch.Generator().manual_seed(seed)."
            )


def one_generator_per_sample(
    generator: torch.Generator | list[torch.Generator] | None, num_samples: int
) -> list[torch.Generator]:
    """Streams that depend on the given generator and the sample's number, and on nothing else.

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(generator, list):
        if len(generator) != num_samples:
            raise ValueError(f"{len(generator)} generators for {num_samples} samples; give one, or one a sample.")
        return generator
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return [torch.Generator(device).manual_seed(seed + number) for number in range(num_samples)]
