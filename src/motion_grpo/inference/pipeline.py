"""The pipeline: a head trajectory in, full-body motion out."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import Skeleton
from motion_grpo.guidance import GuidanceConfig, GuidanceReport, Guide, Terrain
from motion_grpo.hub import PICKLES, HubMixin, fetch_pipeline, refuse_damaged
from motion_grpo.inference.arguments import (
    check_count,
    check_generators,
    check_number,
    one_a_recording,
    one_generator_per_sample,
)
from motion_grpo.inference.lora import LoraMixin
from motion_grpo.inference.sampling import hang_body, sample_latents, steady_neck
from motion_grpo.inference.stitching import STITCHINGS
from motion_grpo.inference.wearer import Recording, Worn, known_betas, reads_wrists, seen_wrists
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.models.conditioning import WristPoses
from motion_grpo.motion import Motion, MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler, refuse_incompatible
from motion_grpo.trajectory import HandObservations, HeadTrajectory

Hands = HandObservations | str | os.PathLike | tuple | np.ndarray | Tensor
"""What is known of the wrists comes as: itself, a file, or a tuple of these, Aria's wrists then HaMeR's hands (arrays
only to be told what they lack)."""
Guidance = GuidanceConfig | str | dict[str, Any]
"""What guidance comes as: itself, its mode, or its plain values."""
Betas = Sequence[float] | np.ndarray | Tensor
"""What one body's shape comes as."""

_EMBEDDED = Path(__file__).parents[1] / "checkpoints"
# Travels with every saved pipeline, so that plain diffusers finds this class: just one pipeline may be visible in it.
_CUSTOM_CODE = "from {module} import {name}  # noqa: F401  (pip install motion-grpo)\n"


@dataclass
class EgoMotionPipelineOutput(BaseOutput):
    """What was recovered."""

    motions: list[Motion] | None
    """One a sample, at 30 fps, in the world of the trajectory (meters, z up); of a list of recordings first all samples
    of the first, then those of the second, and so on. None for ``output_type="latent"``."""
    latents: Float[Tensor, "samples frames d_state"] | list[Float[Tensor, "samples _frames d_state"]]
    """Packed clean states, laid out as the denoiser's ``state_layout`` says; rotations are proper. Of a list of
    recordings all samples in the order of ``motions``, or a list with one tensor a recording where they are not of one
    length."""
    trajectory: HeadTrajectory | list[HeadTrajectory]
    """The head at 30 fps, as it was used; says where the floor height came from. Of a list of recordings a list."""
    guidance: GuidanceReport | list[GuidanceReport | None] | None = None
    """Cost before and after guidance; None where there was none after sampling. Of a list of recordings a list."""

    @property
    def motion(self) -> Motion:
        """The first sample.

        Raises:
            ValueError: latents were asked for.
        """
        if self.motions is None:
            raise ValueError("output_type='latent' returns latents only; call the pipeline with output_type='motion'.")
        return self.motions[0]


class EgoMotionPipeline(HubMixin, LoraMixin, DiffusionPipeline):
    """Recovers SMPL-H motion from the trajectory of a head-mounted device (MotionGRPO, Eq. 6; EgoAllo, Sec. 3).

    Args:
        denoiser: the network.
        scheduler: :class:`EgoMotionSDEScheduler`, or one of diffusers' for x0-prediction on the same noise, e.g.
            ``DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")``.
        num_inference_steps: sampling steps where a call names none.
        window: frames that the network sees at once, as in its training.
        overlap: frames that neighboring windows share, at least.
        stitching: ``crossfade``, or ``egoallo`` for EgoAllo's own windows and weights, which jump where a window ends.
        guidance: for calls that name none: a mode, a :class:`GuidanceConfig` or its plain values; saved with the
            pipeline.
        neck_low_pass: frames; the neck is held so steady, and the head joint takes up the faster turns of the head
            (:func:`~motion_grpo.inference.sampling.steady_neck`). 0, as EgoAllo: the body shakes with its head.

    Raises:
        ValueError: an overlap that leaves nothing of a window, an unknown stitching, or a scheduler that does not fit
            the denoiser.
    """

    model_cpu_offload_seq = "denoiser"

    def __init__(
        self,
        denoiser: EgoMotionDenoiser,
        scheduler: SchedulerMixin,
        num_inference_steps: int = 30,
        window: int = 128,
        overlap: int = 32,
        stitching: str = "crossfade",
        guidance: Guidance | None = None,
        neck_low_pass: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < overlap < window:
            raise ValueError(f"overlap is {overlap} and window {window} frames; 0 < overlap < window is needed.")
        if stitching not in STITCHINGS:
            raise ValueError(f"stitching is {stitching!r}; choose one of {', '.join(STITCHINGS)}.")
        if not 0 <= neck_low_pass < window:
            raise ValueError(f"neck_low_pass must be 0 (none) or a few frames, got {neck_low_pass}; 1 is what helped.")
        refuse_incompatible(scheduler, denoiser.config.max_t)
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        config = GuidanceConfig.of(guidance)
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            window=window,
            overlap=overlap,
            stitching=stitching,
            guidance=None if config is None else config.to_dict(),
            neck_low_pass=neck_low_pass,
        )
        self.skeleton = Skeleton.default()
        """The body that the predicted betas refer to; not saved: set it to ``Skeleton.from_smplh(...)`` for weights
        that were trained on that."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None = None, **kwargs: Any
    ) -> "EgoMotionPipeline":
        """Loads a pipeline: a folder, a Hub id, or the name of a checkpoint that ships with the package.

        Args:
            pretrained_model_name_or_path: None is the shipped ``base``.
            kwargs: diffusers' (``dtype``, ``revision``, ``token``, ...).

        Raises:
            ValueError: weights that are pickled, damaged, incomplete or misshapen.
            OSError: no such folder or repository, one that lacks a file, or a download that is not what the Hub has.
        """
        name = "base" if pretrained_model_name_or_path is None else os.fspath(pretrained_model_name_or_path)
        if not Path(name).exists() and (_EMBEDDED / name / "model_index.json").is_file():
            name = str(_EMBEDDED / name)
        folder = Path(name)
        if not folder.is_dir():
            try:
                folder = fetch_pipeline(name, kwargs)
            except OSError as error:
                shipped = sorted(path.parent.name for path in _EMBEDDED.glob("*/model_index.json"))
                raise OSError(
                    f"{name!r} is no folder, no checkpoint that ships with this package "
                    f"({', '.join(shipped) or 'none does'}) and no pipeline of the Hub: {error}"
                ) from error
        _refuse_incomplete(folder, given=kwargs.keys())
        # Geometry is float32 throughout; fp16 files are only a smaller way to store the same weights.
        if kwargs.get("torch_dtype") is None:
            kwargs.setdefault("dtype", torch.float32)
        pipeline = super().from_pretrained(str(folder), **kwargs)
        pipeline.register_to_config(_name_or_path=name)
        pipeline.denoiser.eval()
        return pipeline

    @classmethod
    def from_egoallo(cls, folder: str | os.PathLike, smplh: str | os.PathLike | None = None) -> "EgoMotionPipeline":
        """EgoAllo's released checkpoint with EgoAllo's sampler.

        Args:
            folder: with ``model_config.yaml`` and ``checkpoints_*/model.safetensors``.
            smplh: licensed SMPL-H ``model.npz``, which its betas refer to; the default body stands in when None.
        """
        pipeline = cls(EgoMotionDenoiser.from_egoallo(folder), EgoMotionSDEScheduler.egoallo(), stitching="egoallo")
        if smplh is not None:
            pipeline.skeleton = Skeleton.from_smplh(smplh)
        return pipeline

    def _further_files(self) -> dict[str, str]:
        """The lines by which plain diffusers loads it: it looks for a component's class in a file of the repository."""
        files = {"pipeline.py": _CUSTOM_CODE.format(module="motion_grpo", name=type(self).__name__)}
        for component, value in self.config.items():
            if isinstance(value, list | tuple) and str(value[0]).startswith("motion_grpo."):
                module, name = value
                files[f"{component}/{module}.py"] = _CUSTOM_CODE.format(module=module, name=name)
        return files

    @torch.no_grad()
    def __call__(
        self,
        trajectory: "Recording | list[Recording]",
        *,
        hands: "Hands | list[Hands | None] | None" = None,
        betas: "Betas | list[Betas | None] | None" = None,
        stature: float | int | list[float | int | None] | None = None,
        guidance: Guidance | None = None,
        terrain: Terrain | None = None,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        eta: float | None = None,
        temperature: float | int = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Float[Tensor, "samples frames d_state"] | list[Tensor] | None = None,
        window_batch_size: int = 32,
        output_type: Literal["motion", "latent"] = "motion",
        callback_on_step_end: Callable[["EgoMotionPipeline", int, int, dict], dict] | None = None,
        return_dict: bool = True,
    ) -> EgoMotionPipelineOutput | tuple:
        """Recovers the body under a head trajectory.

        Args:
            trajectory: a :class:`HeadTrajectory`, a file that :func:`load_trajectory` reads, or CPF poses at 30 fps in
                a z-up world as (frames, 4, 4) matrices or (frames, 7) wxyz + xyz. Any length from two poses on;
                resampled to 30 fps by its timestamps. A list of these is a batch, whose recordings are recovered as
                calls of their own would.
            hands: where the wrists were seen, for networks that read wrists and for guidance that fits them: a
                :class:`HandObservations` (of a bare array nobody knows when they were), a file that
                :func:`load_hands` reads, or a tuple of Aria's wrists and HaMeR's hands; for a list of recordings a
                list, with None where nothing is known.
            betas: the wearer's shape, up to 16 numbers of the body model; the motion has exactly these. For a list of
                recordings one for all, or a list with one (or None) a recording.
            stature: meters, in place of ``betas``: the average body of that height. For a list of recordings as
                ``betas``.
            guidance: test-time optimization: a mode (``no_hands`` ...), a :class:`GuidanceConfig`, or ``off``; the
                pipeline's own when None.
            terrain: the ground in the world of the trajectory, for guidance with ``penetration``; the floor when None.
            num_samples: motions to draw, of each recording.
            num_inference_steps: sampling steps; the pipeline's own number when None.
            eta: stochasticity, 0 (deterministic given the start) to 1 (ancestral); the scheduler's own when None.
            temperature: scale of the starting noise. Above 1 samples differ more, and each is further off: with 1.5,
                eta 0 and 10 steps those of ``base`` differ by a quarter of their error (docs/pretraining.md). Without
                effect on ``latents``.
            generator: a sample depends on the generator and its own number only, neither on how many are drawn nor on
                the batching. A list gives each sample one; for a list of recordings it gives each recording one, used
                as a call with that recording alone uses it. The global generator when None.
            latents: noise to start from, in place of drawn noise; for a list of recordings a list.
            window_batch_size: windows denoised at once; bounds the memory.
            output_type: ``latent`` skips the kinematics.
            callback_on_step_end: called as ``callback(pipeline, step, timestep, {"latents": latents})`` after each
                step; may return a dict with other latents.
            return_dict: False returns the output as a tuple.

        Raises:
            ValueError: bad input; the message says what and where.
            FileNotFoundError: no such trajectory file.
        """
        if num_inference_steps is None:
            num_inference_steps = self.config.num_inference_steps
        for name, count in (
            ("num_samples", num_samples),
            ("num_inference_steps", num_inference_steps),
            ("window_batch_size", window_batch_size),
        ):
            check_count(name, count)
        check_number("temperature", temperature, "1 is the network's own, 1.5 spreads more", above=True)
        if eta is not None:
            check_number("eta", eta, "0 is deterministic given the start, 1 ancestral")
        check_generators(generator)
        if output_type not in ("motion", "latent"):
            raise ValueError(f"output_type is {output_type!r}; choose 'motion' or 'latent'.")
        options: dict[str, Any] = dict(
            guidance=GuidanceConfig.of(self.config.get("guidance") if guidance is None else guidance),
            terrain=terrain,
            num_samples=num_samples,
            num_inference_steps=num_inference_steps,
            eta=eta,
            temperature=temperature,
            window_batch_size=window_batch_size,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
        )
        if isinstance(trajectory, list | tuple):
            count = len(trajectory)
            if count == 0:
                raise ValueError("The list of recordings is empty; give at least one.")
            generators = one_a_recording(generator, count, "generators", shared=True)
            starts = one_a_recording(latents, count, "latents")
            seen = one_a_recording(hands, count, "hands")
            # Plain numbers are one body's.
            one_body = isinstance(betas, list) and all(isinstance(beta, Real) for beta in betas)
            bodies = [betas] * count if one_body else one_a_recording(betas, count, "betas", shared=True)
            statures = one_a_recording(stature, count, "statures", shared=True)
            shapes = [known_betas(self.skeleton, *known) for known in zip(bodies, statures, strict=True)]
            outputs = [
                self._recover(recording, generator=own, latents=start, hands=wrists, shape=shape, **options)
                for recording, own, start, wrists, shape in zip(
                    trajectory, generators, starts, seen, shapes, strict=True
                )
            ]
            output = EgoMotionPipelineOutput(
                motions=None if output_type == "latent" else [motion for one in outputs for motion in one.motions],
                latents=_together([one.latents for one in outputs]),
                trajectory=[one.trajectory for one in outputs],
                guidance=[one.guidance for one in outputs] if any(one.guidance for one in outputs) else None,
            )
        else:
            shape = known_betas(self.skeleton, betas, stature)
            output = self._recover(
                trajectory, generator=generator, latents=latents, hands=hands, shape=shape, **options
            )
        self.maybe_free_model_hooks()
        return output if return_dict else output.to_tuple()

    def _recover(
        self,
        recording: Recording,
        *,
        hands: object,
        shape: Float[Tensor, "16"] | None,
        guidance: GuidanceConfig | None,
        terrain: Terrain | None,
        output_type: str,
        **sampling: Any,
    ) -> EgoMotionPipelineOutput:
        """One recording of a checked call; ``shape`` is the wearer's, if known; ``sampling`` is for `_sample`."""
        worn = Worn.read(recording, hands, shape, self._execution_device)
        guide = None if guidance is None else worn.guide(guidance, self.skeleton, terrain)
        wrists = None
        if worn.hands and (reads_wrists(self.denoiser) or guidance is None or not guidance.uses_hands):
            wrists = seen_wrists(self.denoiser, worn.hands, worn.recorded, worn.trajectory, worn.head)
        latents = self._sample(worn, wrists, guide, **sampling)
        layout, report, motions = self.denoiser.state_layout, None, None
        state = MotionState.unpack(latents, layout, project=False)
        if self.config.neck_low_pass:
            state = steady_neck(self.skeleton.to(latents.device), state, worn.head, self.config.neck_low_pass)
            latents = state.pack(layout)
        if guide is not None and guide.config.post:
            state, report = guide.post(state)  # maybe with fingers that the packed state has no place for
            latents = state.pack(layout)
        if output_type == "motion":
            samples = [MotionState(*(None if x is None else x[n] for x in state)) for n in range(len(latents))]
            motions = [self._motion(sample, worn) for sample in samples]
        return EgoMotionPipelineOutput(motions=motions, latents=latents, trajectory=worn.trajectory, guidance=report)

    def _sample(
        self,
        worn: Worn,
        wrists: WristPoses | None,
        guide: Guide | None,
        *,
        num_samples: int,
        generator: torch.Generator | list[torch.Generator] | None,
        callback_on_step_end: Callable[["EgoMotionPipeline", int, int, dict], dict] | None,
        **options: Any,
    ) -> Float[Tensor, "samples frames d_state"]:
        """Draws the states of one recording, with a progress bar; ``options`` as in :func:`sample_latents`."""
        layout = self.denoiser.state_layout

        def fit(x0: Tensor) -> Tensor:
            return guide.inner(MotionState.unpack(x0, layout, project=False)).pack(layout)

        def on_step(step: int, timestep: int, latents: Tensor) -> Tensor | None:
            return (callback_on_step_end(self, step, timestep, {"latents": latents}) or {}).get("latents")

        with self.progress_bar(total=1) as bar:

            def on_batch(total: int) -> None:
                bar.total = total
                bar.update()

            return sample_latents(
                self.denoiser,
                self.scheduler,
                worn.head,
                num_samples=num_samples,
                generator=one_generator_per_sample(generator, num_samples),
                window=self.config.window,
                overlap=self.config.overlap,
                stitching=self.config.stitching,
                wrists=wrists,
                betas=worn.shape,
                body_measures=None if worn.shape is None else self.skeleton.to(worn.shape.device).measures(worn.shape),
                fit=fit if guide is not None and guide.config.inner else None,
                on_step=None if callback_on_step_end is None else on_step,
                on_batch=on_batch,
                **options,
            )

    def _motion(self, state: MotionState, worn: Worn) -> Motion:
        """Hangs the body from the head: one shape for the whole motion, the root found last."""
        betas = state.mean_betas()[0] if worn.shape is None else worn.shape
        body = hang_body(self.skeleton.to(betas.device), state, worn.head, betas=betas)
        floor_height = worn.trajectory.floor_height
        root_positions = body.joints[:, 0].cpu()
        root_positions[:, 2] += floor_height
        hands = state.hand_rotmats
        return Motion(
            root_rotmats=body.rotmats[:, 0].cpu(),
            root_positions=root_positions,
            body_rotmats=state.body_rotmats.cpu(),
            betas=betas.cpu(),
            contacts=state.contacts.clamp(0, 1).cpu(),
            timestamps=worn.trajectory.timestamps,
            hand_rotmats=None if hands is None else hands.cpu(),
            floor_height=floor_height,
            skeleton=self.skeleton,
        )


def _together(
    latents: list[Float[Tensor, "samples _frames d_state"]],
) -> Float[Tensor, "all_samples frames d_state"] | list[Float[Tensor, "samples _frames d_state"]]:
    """The samples of all recordings in one batch, as diffusers' pipelines return them, where their lengths allow it."""
    return torch.cat(latents) if len({one.shape[1] for one in latents}) == 1 else latents


def _refuse_incomplete(folder: Path, given: Collection[str]) -> None:
    """One clear sentence in place of what diffusers says of a folder that is not, or not wholly, a saved pipeline."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is no saved pipeline: it has no model_index.json.")
    if "denoiser" in given:
        return
    weights = folder / "denoiser"
    found = sorted(weights.glob("*.safetensors"))
    for path in found:
        refuse_damaged(path)
    if found:
        return
    pickles = sorted(path.name for suffix in PICKLES for path in weights.glob(f"*{suffix}"))
    if pickles:
        raise ValueError(f"{weights / pickles[0]} is a pickle, which is never loaded; save the weights as safetensors.")
    raise FileNotFoundError(f"{weights} holds no diffusion_pytorch_model.safetensors.")


# Plain ``DiffusionPipeline.from_pretrained`` looks for the classes of a model_index.json among diffusers' own. What is
# not there it takes from the files that travel with a saved pipeline (_further_files), if it is told to trust them.
diffusers.EgoMotionPipeline = EgoMotionPipeline
for _component in (EgoMotionDenoiser, EgoMotionSDEScheduler):
    setattr(diffusers.pipelines, _component.__module__, sys.modules[_component.__module__])
