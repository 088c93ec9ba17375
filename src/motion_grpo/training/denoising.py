"""Pre-training and supervised fine-tuning of the denoiser (MotionGRPO, Eq. 3), as a transformers Trainer."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback, TrainingArguments

from motion_grpo.body import Skeleton
from motion_grpo.data import Clip, MotionWindows, collate_windows
from motion_grpo.data.batches import Augmentation, TrainingBatch, training_batch
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.sampling import hang_body, recover_state
from motion_grpo.metrics import jitter, mpjpe, mpjve
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import FPS, MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.averaging import AveragedWeights
from motion_grpo.training.callbacks import TellEpoch
from motion_grpo.training.hub_runs import DiffusersTrainer, clips_to_evaluate
from motion_grpo.training.losses import (
    GeometricWeights,
    denoising_loss,
    geometric_loss,
    level_weights,
    sample_noise_levels,
)
from motion_grpo.training.observation import DeviceErrors, Observation, WristPatterns, observe
from motion_grpo.training.settings import WITHOUT_EFFECT_DENOISING, refuse_without_effect

_STATISTICS_WINDOWS = 512


@dataclass
class DenoisingConfig(TrainingArguments):
    """Settings of :class:`DenoisingTrainer` beyond those of transformers; the defaults are EgoAllo's.

    Raises:
        ValueError: a setting of transformers that has no effect here
            (:data:`~motion_grpo.training.settings.WITHOUT_EFFECT_DENOISING`).
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW's."})
    weight_decay: float = field(default=1e-4, metadata={"help": "AdamW's."})
    warmup_steps: float = field(default=1000, metadata={"help": "Linear warm-up; below 1, a share of all steps."})
    per_device_train_batch_size: int = field(default=256, metadata={"help": "Windows per step and device."})
    bf16: bool = field(
        default=False, metadata={"help": "Autocast to bfloat16; leave off where the device is slow at it."}
    )
    window: int = field(default=128, metadata={"help": "Frames of a training window (T)."})
    noise_weighting: str = field(
        default="egoallo", metadata={"help": "'egoallo' weights the loss by signal-to-noise; 'uniform' by 1."}
    )
    favour_high_noise: bool = field(
        default=False, metadata={"help": "Draw noise levels with a density that grows with the level; else uniformly."}
    )
    rotation_weight: float = field(default=1.0, metadata={"help": "Factor on the whole of EgoAllo's loss."})
    position_weight: float = field(default=0.0, metadata={"help": "Joint positions through forward kinematics, per m."})
    velocity_weight: float = field(default=0.0, metadata={"help": "Joint velocities, per m/s."})
    foot_contact_weight: float = field(default=0.0, metadata={"help": "Speed of planted feet, per m/s."})
    mirror_probability: float = field(default=0.5, metadata={"help": "Of exchanging left and right in a window."})
    body_size_probability: float = field(
        default=0.0, metadata={"help": "Of giving a window to a body of another size."}
    )
    body_size_std: float = field(
        default=1.0, metadata={"help": "Of the change of betas[0] that goes with it; 1 is 0.1 m of stature."}
    )
    head_error_degrees: float = field(
        default=0.0, metadata={"help": "Constant turn of the device on the head, about each axis (std), degrees."}
    )
    head_error_metres: float = field(default=0.0, metadata={"help": "Its constant offset along each axis (std), m."})
    floor_error_metres: float = field(default=0.0, metadata={"help": "Error of the floor height (std), meters."})
    head_jitter_metres: float = field(default=0.0, metadata={"help": "Tracking noise of each frame (std), meters."})
    head_gap_probability: float = field(default=0.0, metadata={"help": "Of a short loss of tracking in a window."})
    head_clean_probability: float = field(default=0.25, metadata={"help": "Of a window without these errors."})
    wrists_both: float = field(default=0.0, metadata={"help": "Share of windows that see both wrists throughout."})
    wrists_one: float = field(default=0.0, metadata={"help": "Share that see one wrist, throughout or in bursts."})
    wrists_bursts: float = field(default=0.0, metadata={"help": "Share that see both wrists in bursts."})
    wrist_error_metres: float = field(default=0.01, metadata={"help": "Error of a seen wrist (std), meters."})
    wrist_weight: float = field(default=0.0, metadata={"help": "Distance of seen wrists from where they were, per m."})
    body_known_probability: float = field(
        default=0.0, metadata={"help": "Of telling the wearer's size (a network with include_body_cond)."}
    )
    ema_decay: float = field(default=0.999, metadata={"help": "Of the averaged weights, which are what is shipped."})
    eval_num_inference_steps: int = field(default=4, metadata={"help": "Sampling steps of the evaluation."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: windows are not model arguments."}
    )

    def __post_init__(self) -> None:
        refuse_without_effect(self, WITHOUT_EFFECT_DENOISING)
        super().__post_init__()


class DenoisingTrainer(DiffusersTrainer):
    """Trains an :class:`EgoMotionDenoiser` on windows of recorded motion.

    Checkpoints hold the model as diffusers writes it, and the averaged weights, which are what :meth:`save_model` users
    want, in ``ema/``. Evaluation recovers whole clips with the averaged weights and reports MPJPE, MPJVE and jitter.

    Args:
        model: the denoiser, new or pre-trained.
        args: settings.
        train_dataset: windows.
        eval_clips: whole clips for the evaluation.
        skeleton: body of the data set's betas; the default body when None.
        sampler: scheduler of the pipeline that :meth:`save_result` writes; the default one when None.
        num_inference_steps: sampling steps which that pipeline defaults to.
        neck_low_pass: how steady that pipeline holds the neck, frames.
    """

    kind = "pipeline"
    args: DenoisingConfig

    def __init__(
        self,
        model: EgoMotionDenoiser,
        args: DenoisingConfig,
        train_dataset: Dataset,
        eval_clips: list[Clip] | None = None,
        skeleton: Skeleton | None = None,
        callbacks: list[TrainerCallback] | None = None,
        *,
        sampler: EgoMotionSDEScheduler | None = None,
        num_inference_steps: int = 30,
        neck_low_pass: float = 0.0,
    ) -> None:
        self.denoiser = model
        self.scheduler = EgoMotionSDEScheduler()
        self.sampler = sampler or EgoMotionSDEScheduler()
        self.num_inference_steps, self.neck_low_pass = num_inference_steps, neck_low_pass
        self.skeleton = (skeleton or Skeleton.default()).to(args.device)
        self.augmentation = Augmentation(args.mirror_probability, args.body_size_probability, args.body_size_std)
        self.errors = DeviceErrors(
            head_degrees=args.head_error_degrees,
            head_metres=args.head_error_metres,
            floor_metres=args.floor_error_metres,
            jitter_metres=args.head_jitter_metres,
            gap_probability=args.head_gap_probability,
            clean_probability=args.head_clean_probability,
            wrist_metres=args.wrist_error_metres,
        )
        self.wrists = WristPatterns(args.wrists_both, args.wrists_one, args.wrists_bursts)
        self.geometric_weights = GeometricWeights(
            args.position_weight, args.velocity_weight, args.foot_contact_weight, args.wrist_weight
        )
        self.level_weights = level_weights(args.noise_weighting, self.scheduler.alphas_cumprod).to(args.device)
        self.eval_clips = eval_clips or []
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        # transformers' name for a data set is only asked whether there is one: evaluation is ours.
        super().__init__(
            model=model,
            args=args,
            data_collator=collate_windows,
            train_dataset=train_dataset,
            eval_dataset=self.eval_clips or None,
            callbacks=callbacks,
        )
        self.ema = AveragedWeights(_trained(model), args.ema_decay)
        self.add_callback(self.ema)
        self.add_callback(TellEpoch())

    def fit_condition_statistics(self) -> None:
        """Stores the spread of the head features over a sample of training windows in a ``normalize_cond`` model.

        The sample is seeded; of a stream it is the beginning.
        """
        if not self.denoiser.config.normalize_cond:
            return
        if isinstance(self.train_dataset, IterableDataset):
            windows = list(islice(self.train_dataset, _STATISTICS_WINDOWS))
        else:
            generator = torch.Generator().manual_seed(self.args.seed)
            rows = torch.randperm(len(self.train_dataset), generator=generator)[:_STATISTICS_WINDOWS]
            windows = [self.train_dataset[int(i)] for i in rows]
        windows = self.data_collator(windows)
        windows = {k: v.to(self.args.device) for k, v in windows.items()}
        # Augmentation and device errors come from the global generator, which the training goes on with.
        with torch.random.fork_rng():
            torch.manual_seed(self.args.seed)
            batch = training_batch(windows, self.skeleton, False, self.augmentation)
            cond = self._condition(self._observe(batch))
        self.denoiser.set_condition_statistics(cond[batch.mask])

    def _observe(self, truth: TrainingBatch) -> Observation:
        return observe(truth, self.skeleton, self.errors, self.wrists, self.args.body_known_probability)

    def _condition(self, seen: Observation) -> Tensor:
        return self.denoiser.condition(
            seen.head, wrists=seen.wrists, body_measures=seen.body_measures, body_known=seen.body_known
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict]:
        """The loss of one batch of windows at randomly drawn noise levels."""
        layout = self.denoiser.state_layout
        with torch.no_grad():
            batch = training_batch(inputs, self.skeleton, layout.include_hands, self.augmentation)
            seen = self._observe(batch)
            target = seen.state.pack(layout)
            levels = sample_noise_levels(
                len(target), len(self.scheduler), favour_high=self.args.favour_high_noise, device=target.device
            )
            noisy = self.scheduler.add_noise(target, torch.randn_like(target), levels)
            cond = self._condition(seen)
        predicted = model(noisy, levels, cond, batch.mask, return_dict=False)[0].float()
        # Kinematics in bfloat16 would be off by centimeters.
        with torch.autocast(target.device.type, enabled=False):
            loss, terms = denoising_loss(predicted, target, layout, self.level_weights[levels - 1], batch.mask)
            loss = self.args.rotation_weight * loss
            if self.geometric_weights:
                state = MotionState.unpack(predicted, layout)
                geometric, more = geometric_loss(
                    state,
                    batch.joints,
                    batch.state.contacts,
                    seen.anchor,
                    self.skeleton,
                    batch.mask,
                    self.geometric_weights,
                    FPS,
                    seen.wrists.visible,
                )
                loss, terms = loss + geometric, terms | more
        for name, term in terms.items():
            self._terms[name].append(term.detach())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the terms of the loss, averaged since the last log."""
        if "loss" in logs:
            logs |= {f"loss/{name}": float(torch.stack(values).mean()) for name, values in self._terms.items()}
            self._terms.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def measure(self, eval_dataset: object) -> dict[str, float]:
        """Recovers whole clips with the averaged weights; means over clips."""
        clips = clips_to_evaluate(eval_dataset, self.eval_clips)
        sums: dict[str, float] = defaultdict(float)
        self.denoiser.eval()
        with self.ema.in_place():
            for index, clip in enumerate(clips):
                for name, value in self._clip_metrics(clip, seed=index).items():
                    sums[name] += value / len(clips)
        return dict(sums)

    def _clip_metrics(self, clip: Clip, seed: int) -> dict[str, float]:
        windows = MotionWindows([clip], length=len(clip.motion), random=False)[0]
        windows = {k: v[None].to(self.args.device) for k, v in windows.items()}
        truth = training_batch(windows, self.skeleton, self.denoiser.config.include_hands)
        head = truth.head._replace(**{name: x[0] for name, x in truth.head._asdict().items()})
        state = recover_state(
            self.denoiser,
            self.scheduler,
            head,
            num_inference_steps=self.args.eval_num_inference_steps,
            eta=0.0,
            generator=torch.Generator().manual_seed(seed),
        )
        body = hang_body(self.skeleton, state, head)
        values = {
            "mpjpe": mpjpe(body.joints, truth.joints),
            "mpjve": mpjve(body.joints, truth.joints, fps=FPS),
            "jitter": jitter(body.joints, fps=FPS),
        }
        return {name: float(value) for name, value in values.items()}

    def save_averaged(self, folder: str | Path) -> None:
        """Writes the averaged weights as a denoiser that ``from_pretrained`` reads."""
        with self.ema.in_place():
            self.denoiser.save_pretrained(folder)

    def save_result(self, folder: str | Path) -> None:
        """Writes a pipeline with the averaged weights. To be called by all processes; the first one writes."""
        if self.is_world_process_zero():
            window = self.args.window
            with self.ema.in_place():
                EgoMotionPipeline(
                    self.denoiser,
                    self.sampler,
                    self.num_inference_steps,
                    window=window,
                    # Less, and a steady body trembles where windows meet (tests/inference/test_window_ends.py).
                    overlap=window * 3 // 8,
                    neck_low_pass=self.neck_low_pass,
                ).save_pretrained(folder)

    def card_facts(self) -> dict[str, Any]:
        """How the pipeline samples."""
        return {"sampling": {"num_inference_steps": self.num_inference_steps, "eta": self.sampler.config.eta}}

    def write_weights(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the denoiser and, in ``ema/``, the averaged one."""
        super().write_weights(folder, state_dict)
        self.save_averaged(folder / "ema")

    def read_weights(self, folder: Path) -> None:
        """Reads what :meth:`write_weights` wrote."""
        super().read_weights(folder)
        self.ema.go_on_from(_trained(EgoMotionDenoiser.from_pretrained(folder / "ema")))


def _trained(denoiser: EgoMotionDenoiser) -> list[nn.Parameter]:
    """Its weights, without the statistics of the condition, which are not averaged."""
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
