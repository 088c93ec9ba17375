"""Direct preference optimization of the denoiser (MotionGRPO, Appendix B, names it as a baseline; Diffusion-DPO)."""

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from motion_grpo.data import Clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.seeding import generator_of
from motion_grpo.training.dpo.objective import dpo_loss, state_error
from motion_grpo.training.dpo.pairs import WINNERS, PreferencePairs
from motion_grpo.training.losses import NOISE_WEIGHTINGS, level_weights
from motion_grpo.training.policy import MotionPolicy
from motion_grpo.training.policy_settings import NumberedSettings, refuse_first
from motion_grpo.training.policy_trainer import NumberedTrainerMixin
from motion_grpo.training.settings import WITHOUT_EFFECT_POLICY, refuse_without_effect
from motion_grpo.trajectory.head_poses import HeadPoses


@dataclass
class MotionDPOConfig(NumberedSettings):
    """Settings of :class:`MotionDPOTrainer` beyond those of transformers, and of how its pairs are drawn.

    Raises:
        ValueError: settings without a meaning, or of transformers without effect
            (:data:`~motion_grpo.training.settings.WITHOUT_EFFECT_POLICY`).
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "AdamW's."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Pairs of a pass, on a device."})
    bf16: bool = field(default=False, metadata={"help": "Forward passes in bfloat16."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})
    beta: float = field(default=5000.0, metadata={"help": "How near the policy stays to the reference; above 0."})
    noise_weighting: str = field(
        default="uniform", metadata={"help": "Of noise levels: uniform, or egoallo, by signal-to-noise."}
    )
    rewards: list[str] = field(
        default_factory=lambda: ["rotation", "position", "aligned_position", "velocity"],
        metadata={"help": "By which pairs are told apart, see motion_grpo.rewards; module:function for one's own."},
    )
    num_pairs: int = field(default=1024, metadata={"help": "Windows that pairs are drawn for."})
    num_generations: int = field(default=16, metadata={"help": "Samples of a window, of which a pair is taken."})
    winner: str = field(default="best", metadata={"help": "best of the group, or truth: the recorded motion."})

    def __post_init__(self) -> None:
        refuse_without_effect(self, WITHOUT_EFFECT_POLICY)
        self.check_policy()
        for name, choices in (("winner", WINNERS), ("noise_weighting", NOISE_WEIGHTINGS)):
            if (value := vars(self)[name]) not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        refuse_first(
            (self.beta <= 0, f"beta is {self.beta}; it must be above 0, or no preference would count."),
            (self.num_pairs < 1, f"num_pairs is {self.num_pairs}; it must be 1 or more."),
            (
                self.num_generations < 2,
                f"num_generations is {self.num_generations}; a pair needs a group of 2 samples or more.",
            ),
        )
        super().__post_init__()
        self.eval_on_start = self.eval_on_start and self.eval_strategy != "no"


class MotionDPOTrainer(NumberedTrainerMixin, Trainer):
    """Teaches the denoiser of a pipeline to prefer the winners of pairs to their losers.

    Both members of a pair get the same noise at the same level; the reference is frozen. Evaluation, checkpoints and
    cards are those of :class:`~motion_grpo.training.MotionGRPOTrainer`; N processes do what one does.

    Args:
        pipeline: the base policy with the scheduler that it is evaluated with; its denoiser is trained in place.
        args: settings.
        pairs: see :func:`~motion_grpo.training.dpo.pairs.draw_pairs`.
        eval_clips: whole clips for the evaluation.
        reference: the pipeline that the policy stays near to; the base as it is now when None.
        callbacks: further ones.

    Raises:
        ValueError: pairs of other states or windows, too few of them, or a reference of another architecture.
    """

    kind = "dpo"
    column = "pair"
    args: MotionDPOConfig

    def __init__(
        self,
        pipeline: EgoMotionPipeline,
        args: MotionDPOConfig,
        pairs: PreferencePairs,
        eval_clips: Sequence[Clip] | None = None,
        reference: EgoMotionPipeline | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        _check_pairs(pairs, pipeline, args)
        if reference is not None:
            _check_reference(reference, pipeline)
        self.take(pipeline, args, None, args.numbers_per_update, eval_clips, project=False)
        self.pairs, self.reference = pairs, None
        if reference is not None:
            self.reference = MotionPolicy(reference.denoiser, project=False).requires_grad_(False).to(args.device)
        elif not self.policy.has_adapter:
            self.reference = copy.deepcopy(self.policy).requires_grad_(False).to(args.device)
        self.level_weights = level_weights(args.noise_weighting, self.rollout_scheduler.alphas_cumprod).to(args.device)
        self.logged = defaultdict(list)
        super().__init__(
            model=self.policy,
            args=args,
            data_collator=self.collate,
            train_dataset=pairs,
            eval_dataset=self.eval_clips or None,
            callbacks=callbacks,
        )
        self.follow(has_reference=True)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict]:
        """Diffusion-DPO's loss of these pairs, at one noise level each."""
        numbers, device = inputs["pair"].tolist(), self.args.device
        pairs, layout = self.pairs, self.denoiser.state_layout
        mask = pairs.mask[numbers].to(device)
        head = HeadPoses(*(x.to(device) for x in pairs.head.rows(numbers)))
        cond = self.denoiser.condition(head)
        levels, noise = self._noise(numbers)
        clean = torch.cat([pairs.winner[numbers], pairs.loser[numbers]]).to(device)
        noisy = self.rollout_scheduler.add_noise(clean, torch.cat([noise, noise]), torch.cat([levels, levels]))
        rows = torch.arange(len(numbers), device=device).repeat(2)

        def errors(policy: nn.Module) -> dict[str, Tensor]:
            predicted = policy(noisy, levels, cond, mask, rows)
            with torch.autocast(device.type, enabled=False):
                found = state_error(predicted, clean, layout, mask[rows]).chunk(2)
            return {"winner": found[0], "loser": found[1]}

        with torch.no_grad(), self._as_reference(model) as reference:
            before = errors(reference)
        loss, margin = dpo_loss(errors(model), before, self.level_weights[levels - 1], self.args.beta)
        everybody = self.gather(margin.detach())
        self.logged["margin"].append(float(everybody.mean()))
        self.logged["accuracy"].append(float((everybody > 0).float().mean()))
        return (loss, {}) if return_outputs else loss

    def _noise(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A noise level and noise for each pair, functions of its number and the number of the update."""
        shape, device = self.pairs.winner.shape[1:], self.args.device
        streams = [generator_of(self.args.seed, self.state.global_step, "pair", number) for number in numbers]
        count = len(self.rollout_scheduler)
        levels = torch.stack([torch.randint(1, count + 1, (), generator=stream) for stream in streams])
        noise = torch.stack([torch.randn(shape, generator=stream) for stream in streams])
        return levels.to(device), noise.to(device)

    @contextlib.contextmanager
    def _as_reference(self, model: nn.Module) -> Iterator[nn.Module]:
        """What stays as it was: another network, or this one without its adapter."""
        if self.reference is not None:
            with self.accelerator.autocast():  # as accelerate does for the policy
                yield self.reference
        else:
            with self.policy.without_adapter():
                yield model

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds margin and accuracy, averaged since the last log, and how many updates were skipped."""
        if "loss" in logs:
            logs |= self.means_of_logged()
        super().log(logs, start_time)


def _check_pairs(pairs: PreferencePairs, pipeline: EgoMotionPipeline, args: MotionDPOConfig) -> None:
    layout = pipeline.denoiser.state_layout
    if pairs.facts.layout != layout:
        raise ValueError(
            f"The pairs are of {pairs.facts.layout}, the network has {layout}; draw pairs from this pipeline."
        )
    if pairs.mask.shape[1] != args.window:
        raise ValueError(f"Pairs have {pairs.mask.shape[1]} frames, but window is {args.window}; make them the same.")
    if len(pairs) < args.numbers_per_update:
        raise ValueError(
            f"There are {len(pairs)} pairs, and an update takes {args.numbers_per_update}; draw more (num_pairs), or "
            "make the batch smaller."
        )


def _check_reference(reference: EgoMotionPipeline, pipeline: EgoMotionPipeline) -> None:
    ours, theirs = dict(pipeline.denoiser.config), dict(reference.denoiser.config)
    if differs := [key for key in ours if not key.startswith("_") and ours[key] != theirs.get(key)]:
        key = differs[0]
        raise ValueError(
            f"The reference is of another architecture: its {key} is {theirs.get(key)!r}, the policy's is "
            f"{ours[key]!r}. Give a reference that the pipeline was trained from, or leave it out."
        )
