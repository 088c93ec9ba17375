"""The sampling loop: from noise to a clean motion state, for a head trajectory of any length."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import HEAD, NECK, PosedBody, Skeleton
from motion_grpo.geometry.rotations import low_pass_rotations
from motion_grpo.inference.stitching import StitchedDenoiser, Stitching
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.models.conditioning import WristPoses
from motion_grpo.motion import MotionState
from motion_grpo.schedulers import noise_level, refuse_incompatible
from motion_grpo.trajectory.head_poses import HeadPoses

StepCallback = Callable[
    [int, int, Float[Tensor, "samples frames d_state"]], Float[Tensor, "samples frames d_state"] | None
]
"""Called after each step with its index, timestep and the latents; may return latents to go on with."""


@torch.no_grad()
def sample_latents(
    denoiser: EgoMotionDenoiser,
    scheduler: SchedulerMixin,
    head: HeadPoses,
    *,
    num_samples: int = 1,
    num_inference_steps: int = 30,
    eta: float | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: Float[Tensor, "samples frames d_state"] | None = None,
    window: int = 128,
    overlap: int = 32,
    stitching: Stitching = "crossfade",
    window_batch_size: int = 32,
    wrists: WristPoses | None = None,
    betas: Float[Tensor, "16"] | None = None,
    body_measures: Float[Tensor, "3"] | None = None,
    fit: Callable[[Float[Tensor, "samples frames d_state"]], Float[Tensor, "samples frames d_state"]] | None = None,
    on_step: StepCallback | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "samples frames d_state"]:
    """Draws motion states for one head trajectory (MotionGRPO, Eq. 2).

    Args:
        denoiser: the network.
        scheduler: ours, or one that :func:`~motion_grpo.schedulers.refuse_incompatible` lets pass.
        head: poses of one trajectory, above a floor at z = 0; no batch axis.
        num_samples: how many motions to draw.
        num_inference_steps: sampling steps.
        eta: stochasticity, 0 (deterministic) to 1 (ancestral); the scheduler's own when None. Schedulers without one
            ignore it.
        temperature: scale of the starting noise; above 1, samples differ more. Without effect on ``latents``.
        generator: one for all samples, or one a sample.
        latents: state to start from; drawn when None.
        window: frames the network sees at once.
        overlap: frames that neighboring windows share, at least.
        stitching: how windows are placed and blended.
        window_batch_size: windows denoised at once; bounds the memory.
        wrists: what was seen of them in each frame, for a network that reads wrists.
        betas: the wearer's shape; the state keeps it in every step. Predicted when None.
        body_measures: the wearer's size (:meth:`~motion_grpo.body.Skeleton.measures`), meters, for a network that reads
            it.
        fit: changes each predicted clean state, before the scheduler steps towards it.
        on_step: see :data:`StepCallback`.
        on_batch: called after each batch of windows with the number of batches that the whole call takes.

    Returns:
        Packed clean states, rotations projected, float32.
    """
    device = head.p_world_cpf.device
    layout = denoiser.state_layout
    shape = (num_samples, len(head.p_world_cpf), layout.dim)
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}; this trajectory and network need {shape}.")
    refuse_incompatible(scheduler, denoiser.config.max_t)

    def cond_of(start: int, stop: int) -> Float[Tensor, "frames d_cond"]:
        seen = None if wrists is None else WristPoses(*(x[start:stop] for x in wrists))
        return denoiser.condition(
            head.window(start, stop),
            None if seen is None else seen.hand_positions(),
            wrists=seen,
            body_measures=None if body_measures is None else body_measures.expand(stop - start, -1),
        )

    begins = denoiser.config.cond_param == "canonicalized"  # its features are seen from a window's first frame
    network = StitchedDenoiser(
        denoiser,
        cond_of(0, shape[1]),
        window=window,
        overlap=overlap,
        stitching=stitching,
        window_batch_size=window_batch_size,
        cond_of=cond_of if begins else None,
    )
    scheduler.set_timesteps(num_inference_steps, device=device)
    batches = network.num_batches(num_samples) * len(scheduler.timesteps)
    if latents is None:
        latents = randn_tensor(shape, generator, device=device, dtype=torch.float32)
        latents *= scheduler.init_noise_sigma * temperature
    # diffusers' schedulers do not agree on what step() takes; this is how its own pipelines ask.
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in accepted else {}
    if eta is not None and "eta" in accepted:
        options["eta"] = eta
    for index, timestep in enumerate(scheduler.timesteps):
        # The state itself for a variance-preserving scheduler; diffusers' Euler and its kin keep a scaled one.
        noisy = scheduler.scale_model_input(latents, timestep)
        x0 = network(noisy, noise_level(scheduler, int(timestep)), on_batch and partial(on_batch, batches))
        # The mean of a step is taken after the projection, so that every step heads for a real pose.
        x0 = _with_betas(MotionState.unpack(x0, layout).pack(layout), betas)
        if fit is not None:
            x0 = fit(x0)
        latents = scheduler.step(x0, timestep, latents, **options).prev_sample
        if on_step is not None:
            changed = on_step(index, int(timestep), latents)
            latents = latents if changed is None else changed
    # Whatever the scheduler's last step, or a callback, has left of them.
    return _with_betas(latents, betas)


def _with_betas(
    x: Float[Tensor, "samples frames d_state"], betas: Float[Tensor, "16"] | None
) -> Float[Tensor, "samples frames d_state"]:
    """The packed state, whose first numbers are the betas, with the given ones in every frame."""
    if betas is None:
        return x
    return torch.cat([betas.expand(*x.shape[:2], -1), x[..., len(betas) :]], dim=-1)


def recover_state(denoiser: EgoMotionDenoiser, scheduler: SchedulerMixin, head: HeadPoses, **options) -> MotionState:
    """:func:`sample_latents`, unpacked; leading axis of samples."""
    return MotionState.unpack(sample_latents(denoiser, scheduler, head, **options), denoiser.state_layout)


def hang_body(
    skeleton: Skeleton,
    state: MotionState,
    head: HeadPoses,
    mask: Bool[Tensor, "*batch frames"] | None = None,
    betas: Float[Tensor, "... 16"] | None = None,
) -> PosedBody:
    """The body of a state, without fingers, moved as a whole until its central pupil frame is the head's.

    Args:
        skeleton: body that betas refer to.
        state: its rotations.
        head: central pupil frame in the world.
        mask: frames that count for the shape; all when None.
        betas: the shape, one or one a frame, where it is known; else it is the mean of the state's over its frames.
    """
    betas = state.mean_betas(mask) if betas is None else betas
    return skeleton.place_by_head(betas, state.body_rotmats, head.R_world_cpf, head.p_world_cpf)


def steady_neck(skeleton: Skeleton, state: MotionState, head: HeadPoses, sigma: float) -> MotionState:
    """The state whose head joint takes up the fast turns of the head, so that the body does not shake with them.

    A body hangs from its head: what a tracker trembles, and what a head does quickly, would swing everything below it.
    People's necks take that up, and a network whose answer is smooth in time cannot say so. The neck's rotation in the
    world is smoothed by a Gaussian ``sigma`` frames wide, and the head joint turned so that the head stays where it is.

    Args:
        skeleton: body that betas refer to.
        state: one or more motions, (samples, frames, ...).
        head: central pupil frame in the world.
        sigma: frames.
    """
    rotmats = hang_body(skeleton, state, head).rotmats
    turned = low_pass_rotations(rotmats[..., NECK, :, :], sigma).mT @ rotmats[..., HEAD, :, :]
    body_rotmats = state.body_rotmats.clone()
    body_rotmats[..., HEAD - 1, :, :] = turned
    return state._replace(body_rotmats=body_rotmats)
