"""Training of the perceptual model: contrastive, against what the base policy makes up (MotionGRPO, Sec. 3.4.1)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import roma
import torch
from accelerate.utils import set_seed
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from transformers import TrainerCallback, TrainingArguments
from trl.trainer.utils import RepeatSampler

from motion_grpo.body import Skeleton
from motion_grpo.data import MotionWindows, StreamedWindows, collate_windows
from motion_grpo.data.batches import Augmentation, TrainingBatch, training_batch
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.rollout import rollout, transitions
from motion_grpo.inference.sampling import hang_body
from motion_grpo.models import MotionPerceptualModel, perceptual_inputs
from motion_grpo.motion import MotionState
from motion_grpo.motion.artefacts import ARTEFACTS, Artefact
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.callbacks import TellEpoch
from motion_grpo.training.hub_runs import DiffusersTrainer
from motion_grpo.training.losses import info_nce, ranking_loss
from motion_grpo.training.settings import WITHOUT_EFFECT_PERCEPTUAL, refuse_without_effect
from motion_grpo.trajectory.head_poses import HeadPoses

NEGATIVES = ("rollout", "gt_noise")
_STATISTICS_WINDOWS = 256


@dataclass
class PerceptualConfig(TrainingArguments):
    """Settings of :class:`PerceptualTrainer` beyond transformers'; the defaults are the paper's (Appendix C).

    Raises:
        ValueError: a setting of transformers that has no effect here
            (:data:`~motion_grpo.training.settings.WITHOUT_EFFECT_PERCEPTUAL`).
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW's."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Head trajectories per step and device."})
    bf16: bool = field(
        default=False, metadata={"help": "Autocast to bfloat16; leave off where the device is slow at it."}
    )
    window: int = field(default=128, metadata={"help": "Frames of a training window (T)."})
    num_negatives: int = field(default=15, metadata={"help": "Made-up motions beside each recorded one (N)."})
    temperature: float = field(default=0.07, metadata={"help": "Delta of Eq. 9."})
    negatives: str = field(
        default="rollout",
        metadata={"help": "'rollout': drawn from the base policy; 'gt_noise': recorded poses with Gaussian noise."},
    )
    noise_scale: float = field(default=0.05, metadata={"help": "gt_noise: deviation of each pose parameter, radians."})
    last_steps: int = field(
        default=3, metadata={"help": "rollout: a negative is the clean state predicted at one of this many last steps."}
    )
    num_inference_steps: int | None = field(
        default=None, metadata={"help": "rollout: sampling steps; each policy's own if unset."}
    )
    eta: float | None = field(default=None, metadata={"help": "rollout: stochasticity; each policy's own if unset."})
    replay: int = field(
        default=1,
        metadata={
            "help": "rollout: steps that a batch of negatives serves. The clean states of the last steps are kept, and "
            "each use draws anew which of them to show, so up to last_steps uses see new negatives. More uses cost "
            "fewer rollouts, which are most of the time, for batches that resemble each other."
        },
    )
    artefact_negatives: int = field(
        default=0,
        metadata={
            "help": "How many of the N are recordings with an artefact made by hand (motion_grpo.motion.artefacts), "
            "in ladders of growing severity that the scores have to fall along. Beyond the paper; 0 is the paper's."
        },
    )
    artefact_rungs: int = field(default=4, metadata={"help": "Motions of a ladder; divides artefact_negatives."})
    mirror_probability: float = field(default=0.5, metadata={"help": "Of exchanging left and right in a window."})
    body_size_probability: float = field(
        default=0.0, metadata={"help": "Of giving a window to a body of another size."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: windows are not model arguments."}
    )

    def __post_init__(self) -> None:
        refuse_without_effect(self, WITHOUT_EFFECT_PERCEPTUAL)
        super().__post_init__()


class _Contrast(NamedTuple):
    """Recorded motions, and what the policies made up for the same heads."""

    truth: TrainingBatch
    joints: Float[Tensor, "batch frames 21 7"]
    head: Float[Tensor, "batch frames 7"]
    made_up: Float[Tensor, "choices batch negatives frames 21 7"]
    """A use shows one of the choices for each negative."""


class PerceptualTrainer(DiffusersTrainer):
    """Trains a :class:`MotionPerceptualModel` with InfoNCE (Eq. 9): one recorded motion against N made-up ones.

    ``artefact_negatives`` of the N go beyond the paper: the same recorded motion with an artefact of growing severity,
    made anew at each use. What the policies make up teaches nothing about faults that they do not have, and InfoNCE
    nothing about which of two bad motions is worse; from the recording down such a ladder a ranking loss asks for
    falling scores.

    Negatives are drawn on the fly for the head trajectories of the batch, by one batched sampling call a policy, and
    ``replay`` steps in a row share them. With several policies each makes its share of the N for every trajectory.

    Args:
        model: the perceptual model, new or trained.
        args: settings.
        train_dataset: windows, with a length (not a stream).
        eval_dataset: windows to report the accuracy on (Eq. 21), against the policies' finished samples.
        policies: pipelines with the frozen base policies; may be left out for ``gt_noise``.
        skeleton: body of the data set's betas; the default body when None.

    Raises:
        ValueError: settings out of range, no policy for ``rollout``, a policy of another body or window than the data's
            or with a scheduler of diffusers, a stream, or fewer windows than a step takes.
    """

    kind = "perceptual"
    args: PerceptualConfig

    def __init__(
        self,
        model: MotionPerceptualModel,
        args: PerceptualConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        policies: Sequence[EgoMotionPipeline] = (),
        skeleton: Skeleton | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.skeleton = (skeleton or Skeleton.default()).to(args.device)
        _check_settings(args, policies)
        _check_windows(args, train_dataset)
        for policy in policies:
            _check_policy(policy, args, self.skeleton)
            policy.denoiser.to(args.device).eval().requires_grad_(False)
        self.policies = list(policies)
        self.augmentation = Augmentation(mirror=args.mirror_probability, body_size=args.body_size_probability)
        self._windows: dict[str, Tensor] = {}
        self._contrast: _Contrast | None = None
        self._uses_left = 0
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        super().__init__(
            model=model,
            args=args,
            data_collator=collate_windows,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )
        self.add_callback(TellEpoch())
        # transformers gives all processes one seed, with which they would draw the same noise.
        set_seed(args.seed, device_specific=True)

    def fit_input_statistics(self) -> None:
        """Stores the spread of recorded motion in the model, over a seeded sample of training windows."""
        generator = torch.Generator().manual_seed(self.args.seed)
        rows = torch.randperm(len(self.train_dataset), generator=generator)[:_STATISTICS_WINDOWS]
        windows = collate_windows([self.train_dataset[int(i)] for i in rows])
        truth = self._truth({name: values.to(self.args.device) for name, values in windows.items()})
        self.diffusers_model.set_input_statistics(*_recorded(truth), truth.mask)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        # One batch for all processes, repeated: a process then meets its own part of it `replay` times in a row.
        return _ReplaySampler(
            train_dataset or self.train_dataset,
            batch_size=self._train_batch_size * self.accelerator.num_processes,
            replay=self.args.replay,
            seed=self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict]:
        """InfoNCE over the batch (Eq. 9)."""
        # A run that is resumed half-way through a batch's uses meets the next batch early.
        if self._uses_left == 0 or not _same(inputs, self._windows):
            self._windows, self._contrast = inputs, self._make_contrast(inputs)
            self._uses_left = self.args.replay
        self._uses_left -= 1
        scores = self._scores(model, self._contrast)
        loss = info_nce(scores, self.args.temperature)
        if self.args.artefact_negatives:
            rungs = scores[:, -self.args.artefact_negatives :].unflatten(1, (-1, self.args.artefact_rungs))
            ladders = torch.cat([scores[:, None, :1].expand(-1, rungs.shape[1], -1), rungs], dim=2)
            loss = loss + ranking_loss(ladders.flatten(0, 1), self.args.temperature)
        with torch.no_grad():
            self._terms["accuracy"].append((scores[:, :1] > scores[:, 1:]).float().mean())
            self._terms["score/recorded"].append(scores[:, 0].mean())
            self._terms["score/made_up"].append(scores[:, 1:].mean())
        return (loss, {}) if return_outputs else loss

    def _scores(self, model: nn.Module, contrast: _Contrast) -> Float[Tensor, "batch motions"]:
        """Of the recorded motion, the policies' and the artefacts', in this order."""
        choices, batch, negatives = contrast.made_up.shape[:3]
        choice = torch.randint(choices, (batch, negatives), device=contrast.head.device)
        row, column = torch.arange(batch, device=choice.device)[:, None], torch.arange(negatives, device=choice.device)
        joints = [contrast.joints[:, None], contrast.made_up[choice, row, column]]
        heads = [contrast.head[:, None].expand(-1, 1 + negatives, -1, -1)]
        for name in self._kinds():
            spoilt, spoilt_head = self._ladder(contrast.truth, ARTEFACTS[name])
            joints.append(spoilt)
            heads.append(spoilt_head)
        joints, heads = torch.cat(joints, dim=1), torch.cat(heads, dim=1)
        mask = contrast.truth.mask.repeat_interleave(joints.shape[1], dim=0)
        return model(joints.flatten(0, 1), heads.flatten(0, 1), mask, return_dict=False)[0].view(batch, -1)

    @torch.no_grad()
    def _make_contrast(self, windows: dict[str, Tensor]) -> _Contrast:
        truth = self._truth(windows, self.augmentation)
        joints, head = _recorded(truth)
        count = self.args.num_negatives - self.args.artefact_negatives
        if count == 0:
            made_up = [joints[None, :, None][:, :, :0]]
        elif self.args.negatives == "gt_noise":
            made_up = [self._noisy(truth, count)]
        else:
            made_up = [
                self._drawn(policy, truth, share, self.args.last_steps)
                for policy, share in zip(self.policies, _shares(count, len(self.policies)), strict=True)
                if share
            ]
        choices = max(len(part) for part in made_up)
        # A policy of fewer steps than last_steps repeats some of its choices.
        made_up = [part[torch.arange(choices, device=part.device) % len(part)] for part in made_up]
        return _Contrast(truth, joints, head, torch.cat(made_up, dim=2))

    def _truth(self, windows: dict[str, Tensor], augmentation: Augmentation | None = None) -> TrainingBatch:
        return training_batch(windows, self.skeleton, False, augmentation)

    def _drawn(
        self,
        policy: EgoMotionPipeline,
        truth: TrainingBatch,
        count: int,
        last_steps: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "choices batch count frames 21 7"]:
        """``count`` samples of the policy for every head: the clean states predicted at each of the last steps."""
        denoiser, device = policy.denoiser, truth.mask.device

        def repeat(x):
            return x.repeat_interleave(count, dim=0)

        cond = denoiser.condition(truth.head)
        encoded = None if denoiser.config.noise_in_encoder else repeat(denoiser.encode(cond, None, truth.mask))
        mask = repeat(truth.mask)
        shape = (*mask.shape, denoiser.state_layout.dim)
        steps, eta = _sampling(policy, self.args)
        drawn = rollout(
            denoiser,
            policy.scheduler,
            _normal(shape, device, generator),
            lambda step: _normal(shape, device, generator),
            repeat(cond),
            mask,
            num_steps=steps,
            eta=eta,
            encoded=encoded,
        )
        head = HeadPoses(*map(repeat, truth.head))
        made_up = []
        for clean in drawn.clean[-last_steps:]:
            state = MotionState.unpack(clean, denoiser.state_layout)
            made_up.append(self._hung(state, head, mask=mask).unflatten(0, (-1, count)))
        return torch.stack(made_up)

    def _noisy(
        self, truth: TrainingBatch, count: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "1 batch count frames 21 7"]:
        """Table 4's weaker negatives: recorded poses, every axis-angle parameter plus Gaussian noise."""

        def repeat(x):
            return x.repeat_interleave(count, dim=0)

        rotvecs = repeat(roma.rotmat_to_rotvec(truth.state.body_rotmats))
        noise = _normal(rotvecs.shape, rotvecs.device, generator)
        noisy = roma.rotvec_to_rotmat(rotvecs + self.args.noise_scale * noise)
        state = truth.state._replace(body_rotmats=noisy, betas=repeat(truth.state.betas))
        joints = self._hung(state, HeadPoses(*map(repeat, truth.head)), betas=state.betas)
        return joints.unflatten(0, (-1, count))[None]

    def _kinds(self) -> list[str]:
        """Artefacts of a use's ladders: all are different, as long as there are enough."""
        names = list(ARTEFACTS)
        order = torch.randperm(len(names)).tolist()
        ladders = self.args.artefact_negatives // self.args.artefact_rungs
        return [names[order[ladder % len(names)]] for ladder in range(ladders)]

    @torch.no_grad()
    def _ladder(
        self, truth: TrainingBatch, artefact: Artefact
    ) -> tuple[Float[Tensor, "batch rungs frames 21 7"], Float[Tensor, "batch rungs frames 7"]]:
        """Recorded motions with an artefact, and their heads: the same artefact, growing.

        The severities run from barely visible to gross, one in each of as many equal parts of their logarithm.
        """
        low, high = artefact.severities[1], artefact.severities[-1]
        rungs, batch, device = self.args.artefact_rungs, len(truth.mask), truth.mask.device
        place = (torch.arange(rungs, device=device) + torch.rand(batch, rungs, device=device)) / rungs
        severity = low * (high / low) ** place
        seed = int(torch.randint(2**31, ()))
        joints, heads = [], []
        for rung in range(rungs):
            spoilt = artefact(
                truth.state.body_rotmats,
                truth.state.betas,
                truth.head.R_world_cpf,
                truth.head.p_world_cpf,
                truth.mask,
                self.skeleton,
                severity[:, rung],
                torch.Generator().manual_seed(seed),
            )
            spoilt_joints, spoilt_head = perceptual_inputs(*spoilt)
            joints.append(spoilt_joints)
            heads.append(spoilt_head)
        return torch.stack(joints, dim=1), torch.stack(heads, dim=1)

    def _hung(self, state: MotionState, head: HeadPoses, **shape: Tensor) -> Float[Tensor, "rows frames 21 7"]:
        """Bodies moved as a whole until their heads are the given ones; ``shape`` is as in :func:`hang_body`."""
        body = hang_body(self.skeleton, state, head, **shape)
        return perceptual_inputs(state.body_rotmats, body.joints, head.R_world_cpf, head.p_world_cpf)[0]

    @torch.no_grad()
    def measure(self, eval_dataset: object) -> dict[str, float]:
        """Accuracy (Eq. 21), percent, against one finished sample of each policy; the same samples at every call.

        Without a policy, against recorded poses with noise. The training's random numbers are left alone.
        """
        windows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(windows, MotionWindows | StreamedWindows):
            raise ValueError(
                f"eval_dataset is a {type(windows).__name__}; the accuracy is that on windows: pass MotionWindows, to "
                "evaluate(eval_dataset=...) or the trainer."
            )
        model = self.diffusers_model.eval()
        right: dict[str, list[Tensor]] = defaultdict(list)
        loader = DataLoader(
            windows,
            self.args.per_device_eval_batch_size,
            collate_fn=collate_windows,
            generator=torch.Generator(),  # a loader draws a number of the global one even where it does not shuffle
        )
        for number, batch in enumerate(loader):
            truth = self._truth({name: values.to(self.args.device) for name, values in batch.items()})
            joints, head = _recorded(truth)
            recorded = model(joints, head, truth.mask).score
            for index, policy in enumerate(self.policies):
                generator = torch.Generator().manual_seed(1_000_003 * number + index)
                drawn = self._drawn(policy, truth, 1, 1, generator)[0, :, 0]
                right[f"accuracy_{index}"].append(recorded > model(drawn, head, truth.mask).score)
            if not self.policies:
                noisy = self._noisy(truth, 1, torch.Generator().manual_seed(number))[0, :, 0]
                right["accuracy"].append(recorded > model(noisy, head, truth.mask).score)
        return {name: 100 * float(torch.cat(x).float().mean()) for name, x in right.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds accuracy and mean scores on the training batches since the last log."""
        if "loss" in logs:
            logs |= {name: float(torch.stack(values).mean()) for name, values in self._terms.items()}
            self._terms.clear()
        super().log(logs, start_time)

    def save_result(self, folder: str | Path) -> None:
        """Writes the model. To be called by all processes; the first one writes."""
        if self.is_world_process_zero():
            self.diffusers_model.save_pretrained(folder)

    def card_facts(self) -> dict[str, Any]:
        """Who made the negatives."""
        return {"policies": [name for policy in self.policies if (name := policy.config.get("_name_or_path"))]}


class _ReplaySampler(RepeatSampler):
    """Whole batches in random order, each ``replay`` times in a row.

    The order follows from seed and epoch alone, where TRL's own goes on drawing and a resumed run would start over.
    """

    def __init__(self, windows: Dataset, *, batch_size: int, replay: int, seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(windows, mini_repeat_count=1, batch_size=batch_size, repeat_count=replay, seed=seed)
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        return super().__iter__()


def _same(windows: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return windows.keys() == others.keys() and all(torch.equal(x, others[name]) for name, x in windows.items())


def _normal(shape: Sequence[int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Drawn where the generator lives, so that a seed means the same on every device."""
    return torch.randn(shape, generator=generator, device="cpu" if generator else device).to(device)


def _sampling(policy: EgoMotionPipeline, args: PerceptualConfig) -> tuple[int, float]:
    """Number of steps and eta of a rollout."""
    steps = policy.config.num_inference_steps if args.num_inference_steps is None else args.num_inference_steps
    return steps, policy.scheduler.config.eta if args.eta is None else args.eta


def _recorded(truth: TrainingBatch) -> tuple[Float[Tensor, "batch frames 21 7"], Float[Tensor, "batch frames 7"]]:
    return perceptual_inputs(truth.state.body_rotmats, truth.joints, truth.head.R_world_cpf, truth.head.p_world_cpf)


def _shares(total: int, parts: int) -> list[int]:
    """``total`` divided as evenly as it goes; the first parts get what is left over."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def _check_settings(args: PerceptualConfig, policies: Sequence[EgoMotionPipeline]) -> None:
    if args.negatives not in NEGATIVES:
        raise ValueError(f"negatives is {args.negatives!r}; choose {' or '.join(map(repr, NEGATIVES))}.")
    if args.negatives == "rollout" and not policies:
        raise ValueError("negatives='rollout' needs a base policy to draw them from; pass policies=[pipeline].")
    for name, value, lowest in (
        ("num_negatives", args.num_negatives, 1),
        ("replay", args.replay, 1),
        ("last_steps", args.last_steps, 1),
        ("artefact_negatives", args.artefact_negatives, 0),
    ):
        if value < lowest:
            raise ValueError(f"{name} is {value}; it must be {lowest} or more.")
    if args.artefact_rungs < 2 or args.artefact_negatives % args.artefact_rungs:
        raise ValueError(
            f"artefact_negatives is {args.artefact_negatives}, artefact_rungs {args.artefact_rungs}; ladders need 2 "
            "rungs or more, and the first must be a multiple of the second."
        )
    if args.artefact_negatives > args.num_negatives:
        raise ValueError(f"artefact_negatives is {args.artefact_negatives} of {args.num_negatives} negatives in all.")
    if not args.temperature > 0 or not args.noise_scale > 0:
        raise ValueError(f"temperature is {args.temperature}, noise_scale {args.noise_scale}; both must be above 0.")


def _check_windows(args: PerceptualConfig, windows: Dataset) -> None:
    if isinstance(windows, IterableDataset):
        raise ValueError("train_dataset is a stream; contrastive training needs windows with a length (MotionWindows).")
    batch = args.train_batch_size * args.world_size
    if len(windows) < batch:
        raise ValueError(
            f"train_dataset has {len(windows)} windows and a step takes {batch}; lower per_device_train_batch_size."
        )
    if args.artefact_negatives and args.train_batch_size < 2:
        raise ValueError(
            "artefact_negatives mixes the motions of a batch, which has only one; raise per_device_train_batch_size."
        )


def _check_policy(policy: EgoMotionPipeline, args: PerceptualConfig, skeleton: Skeleton) -> None:
    if not isinstance(policy.scheduler, EgoMotionSDEScheduler):
        raise ValueError(
            f"The base policy has a {type(policy.scheduler).__name__}; its rollouts need an EgoMotionSDEScheduler: set "
            "pipeline.scheduler = EgoMotionSDEScheduler.from_config(pipeline.scheduler.config)."
        )
    if policy.skeleton.name != skeleton.name:
        raise ValueError(
            f"The base policy's state describes the body {policy.skeleton.name!r}, the data's betas {skeleton.name!r}: "
            "set pipeline.skeleton, or choose a policy that was trained on this body."
        )
    if policy.config.window < args.window:
        raise ValueError(
            f"window is {args.window} frames, but the base policy was trained on {policy.config.window}; set window to "
            "that or less."
        )
    transitions(policy.scheduler, *_sampling(policy, args))
