"""What a call knows of a wearer: the head, the shape of the body, and where the wrists were seen."""

import os
import warnings
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BETAS, Skeleton
from motion_grpo.guidance import GuidanceConfig, Guide, Terrain, seen_hands
from motion_grpo.inference.arguments import as_trajectory
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.models.conditioning import WristPoses
from motion_grpo.motion import FPS
from motion_grpo.trajectory import HandObservations, HeadTrajectory, load_hands
from motion_grpo.trajectory.checks import ArrayLike, as_float64
from motion_grpo.trajectory.head_poses import HeadPoses

Recording = HeadTrajectory | str | os.PathLike | np.ndarray | Tensor
"""What a head trajectory comes as: itself, a file, or an array of poses."""

_USUAL_BETA = 3.0
"""Beyond this many standard deviations a shape space describes nobody well."""


@dataclass(frozen=True)
class Worn:
    """What is known of one recording's wearer."""

    recorded: HeadTrajectory
    """The head as it was recorded."""
    trajectory: HeadTrajectory
    """The same at 30 fps."""
    head: HeadPoses
    """The same with the floor at z = 0, on the device that samples."""
    shape: Float[Tensor, "16"] | None
    """Betas, where they are known; on that device too."""
    hands: tuple[HandObservations, ...]
    """Aria's wrists, HaMeR's hands; empty where nothing was seen of them."""

    @classmethod
    def read(
        cls, recording: Recording, hands: object, shape: Float[Tensor, "16"] | None, device: torch.device
    ) -> "Worn":
        """A recording of a pipeline call, resampled to 30 fps.

        Args:
            recording: the head.
            hands: as for :func:`read_hands`, or None.
            shape: betas, where they are known.
            device: that samples.

        Raises:
            ValueError: less than two frames, and what the readers refuse.
        """
        recorded = as_trajectory(recording)
        trajectory = recorded.resample(FPS)
        if len(trajectory) < 2:
            raise ValueError(
                f"{trajectory.source} lasts less than two frames at {FPS:.0f} fps; a motion needs at least two."
            )
        floored = trajectory.above_floor()
        head = HeadPoses.from_world(floored.R_world_cpf.to(device), floored.p_world_cpf.to(device))
        seen = () if hands is None else tuple(read_hands(hands, recorded))
        return cls(recorded, trajectory, head, None if shape is None else shape.to(device), seen)

    def guide(self, guidance: GuidanceConfig, skeleton: Skeleton, terrain: Terrain | None) -> Guide:
        """What fits the samples of this recording."""
        return Guide(
            guidance,
            skeleton,
            self.head,
            betas=self.shape,
            hands=seen_hands(guidance, list(self.hands), self.recorded, self.trajectory),
            terrain=None if terrain is None else terrain.lowered(self.trajectory.floor_height),
        )


def known_betas(skeleton: Skeleton, betas: ArrayLike | None, stature: object) -> Float[Tensor, "16"] | None:
    """The wearer's shape, from up to 16 betas or a stature in meters; None where neither is known.

    Raises:
        ValueError: both, betas of another size, or a stature that nobody has.
    """
    if betas is not None and stature is not None:
        raise ValueError("Both betas and stature are given, and each fixes the body; give one of them.")
    if stature is not None:
        if not isinstance(stature, Real) or isinstance(stature, bool):
            raise ValueError(f"stature is {stature!r}; give one height in meters (a list is for a list of recordings).")
        known = skeleton.betas_of_stature(float(stature))
        if known[0].abs() > _USUAL_BETA:
            ends = known.new_zeros(2, NUM_BETAS)
            ends[:, 0] = torch.tensor([-_USUAL_BETA, _USUAL_BETA])
            low, high = sorted(skeleton.stature(ends).tolist())
            warnings.warn(
                f"A stature of {stature:g} m lies outside of the {low:.2f} to {high:.2f} m that the body model "
                "describes well.",
                stacklevel=3,
            )
        return known
    if betas is None:
        return None
    given = as_float64(betas, "betas")
    if given.ndim != 1 or not 1 <= len(given) <= NUM_BETAS:
        raise ValueError(
            f"betas have the shape {tuple(given.shape)}; give one body's, ({NUM_BETAS},) or the first few of them."
        )
    if not bool(given.isfinite().all()):
        raise ValueError(f"betas hold a NaN or an infinity: {given.tolist()}; give the shape of one body.")
    return torch.nn.functional.pad(given.float(), (0, NUM_BETAS - len(given)))


def read_hands(hands: object, recording: HeadTrajectory) -> list[HandObservations]:
    """What is known of the hands in one recording: observations, a file that :func:`load_hands` reads, or a tuple.

    Raises:
        ValueError: observations without flags.
    """
    found = []
    for one in hands if isinstance(hands, tuple) else (hands,):
        if isinstance(one, str | os.PathLike):
            one = load_hands(one, recording)
        if not isinstance(one, HandObservations):
            raise ValueError(
                f"hands is a {type(one).__name__}, without a flag that says when each wrist was seen; give "
                "HandObservations.from_world(poses, visible=...), or a file."
            )
        found.append(one)
    return found


def reads_wrists(denoiser: EgoMotionDenoiser) -> bool:
    """Whether the network can be told where wrists were seen."""
    return denoiser.config.include_wrists_cond or denoiser.config.include_hand_positions_cond


def seen_wrists(
    denoiser: EgoMotionDenoiser,
    hands: object,
    recording: HeadTrajectory,
    head_trajectory: HeadTrajectory,
    head: HeadPoses,
) -> WristPoses:
    """What was seen of the wrists in each frame, relative to the head.

    Args:
        denoiser: the network that is to be told.
        hands: as for :func:`read_hands`; of a tuple the first.
        recording: the head as it was recorded.
        head_trajectory: the same at the frames of ``head``.
        head: the same with the floor at z = 0.

    Raises:
        ValueError: a network that reads no wrists, observations without flags, or of another recording.
    """
    if not reads_wrists(denoiser):
        raise ValueError(
            "This network reads no wrists (neither include_wrists_cond nor include_hand_positions_cond is set in its "
            "config): leave hands out, fit them by guidance (docs/guidance.md), or load a checkpoint that was trained "
            "with them."
        )
    seen = read_hands(hands, recording)[0].timed_by(recording).along(head_trajectory)
    floor = torch.tensor([0.0, 0.0, head_trajectory.floor_height])
    known = (seen.R_world_wrist, seen.p_world_wrist - floor, seen.visible)
    return WristPoses.from_world(*(x.to(head.p_world_cpf.device) for x in known), head)
