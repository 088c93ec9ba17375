"""Post-training along the exact gradient of rewards, by backpropagation through kinematics and sampling steps.

GRPO estimates from the scores of a group in which direction the policy should go; where rewards are differentiable, as
all built-in ones are, the direction is known. ``backprop="chain"`` differentiates the finished motion through the last
K sampling steps (DRaFT-K, Clark et al., ICLR 2024; AlignProp, Prabhudesai et al. 2023); ``backprop="steps"`` rewards
the clean state that each of the last K steps predicts, every step for itself (EasyTune, Tan et al. 2026). With K = 1
both are the same.
"""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from motion_grpo.body import NUM_BETAS, NUM_BODY_JOINTS, NUM_HAND_JOINTS
from motion_grpo.data import Clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.rollout import transitions
from motion_grpo.motion import MotionState
from motion_grpo.rewards import Reward, check_differentiable, score_with_gradient
from motion_grpo.seeding import generator_of
from motion_grpo.training.conditions import NumberedConditions
from motion_grpo.training.judging import Conditions, check_truth, named_rewards, weights_of
from motion_grpo.training.policy_settings import NumberedSettings, refuse_first
from motion_grpo.training.policy_trainer import NumberedTrainerMixin
from motion_grpo.training.settings import WITHOUT_EFFECT_POLICY, refuse_without_effect

BACKPROP = ("chain", "steps")
NORMALIZATIONS = ("none", "std")


@dataclass
class RewardGradientConfig(NumberedSettings):
    """Settings of :class:`RewardGradientTrainer` beyond those of transformers.

    Batch sizes count conditions, each of which is sampled once.

    Raises:
        ValueError: settings without a meaning, or of transformers without effect
            (:data:`~motion_grpo.training.settings.WITHOUT_EFFECT_POLICY`).
    """

    learning_rate: float = field(default=2e-4, metadata={"help": "AdamW's."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Conditions of a pass, on a device."})
    bf16: bool = field(
        default=False, metadata={"help": "Forward passes in bfloat16; kinematics and rewards stay float32."}
    )
    ema_decay: float = field(
        default=0.99, metadata={"help": "Of averaged weights, which are evaluated and shipped; 0 is none."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})

    num_sampling_steps: int = field(default=3, metadata={"help": "Steps of a rollout (n)."})
    eta: float | None = field(
        default=None, metadata={"help": "Stochasticity of a rollout's steps; the pipeline's own if unset."}
    )
    backprop_steps: int = field(default=1, metadata={"help": "Last steps of a rollout that are learned from (K)."})
    backprop: str = field(
        default="chain",
        metadata={"help": "chain: the finished motion's rewards through all K steps; steps: each step's own."},
    )
    rewards: list[str] = field(
        default_factory=lambda: ["rotation", "position", "aligned_position", "velocity"],
        metadata={"help": "Differentiable ones, see motion_grpo.rewards; module:function for one's own."},
    )
    reward_normalization: str = field(
        default="std",
        metadata={"help": "std: each reward over its standard deviation in the batch; none: by reward_weights alone."},
    )

    def __post_init__(self) -> None:
        refuse_without_effect(self, WITHOUT_EFFECT_POLICY)
        self.check_policy()
        for name, choices in (("backprop", BACKPROP), ("reward_normalization", NORMALIZATIONS)):
            if (value := vars(self)[name]) not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        refuse_first(
            (
                self.num_sampling_steps < 1,
                f"num_sampling_steps is {self.num_sampling_steps}; a motion takes 1 step or more.",
            ),
            (
                not 1 <= self.backprop_steps <= self.num_sampling_steps,
                f"backprop_steps is {self.backprop_steps}, but a rollout has {self.num_sampling_steps} steps; set it "
                "to 1 up to num_sampling_steps.",
            ),
            (self.eta is not None and self.eta < 0, f"eta is {self.eta}; it must be 0 or more."),
        )
        super().__post_init__()
        self.eval_on_start = self.eval_on_start and self.eval_strategy != "no"


class RewardGradientTrainer(NumberedTrainerMixin, Trainer):
    """Post-trains the denoiser of a pipeline on differentiable rewards of what it samples.

    Data, rewards, evaluation, checkpoints and cards are those of :class:`~motion_grpo.training.MotionGRPOTrainer`. An
    update samples each condition once, without gradient up to the last K steps; N processes with the same conditions
    do what one does.

    Args:
        pipeline: the base policy with the scheduler that it is evaluated with; its denoiser is trained in place.
        args: settings.
        train_dataset: :class:`MotionWindows` of recorded motion, with a seed; :class:`HeadWindows` where no reward
            needs a truth.
        eval_clips: whole clips for the evaluation.
        rewards: by name, in place of those that ``args`` names.
        callbacks: further ones.

    Raises:
        ValueError: data, settings and pipeline that do not fit each other, or a reward without gradient; the message
            says what and how to mend it.
    """

    kind = "reward_gradient"
    column = "condition"
    args: RewardGradientConfig

    def __init__(
        self,
        pipeline: EgoMotionPipeline,
        args: RewardGradientConfig,
        train_dataset: Dataset,
        eval_clips: Sequence[Clip] | None = None,
        rewards: Mapping[str, Reward] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.take(pipeline, args, train_dataset, args.numbers_per_update, eval_clips)
        self.rewards = dict(rewards) if rewards is not None else named_rewards(args, args.device)
        check_truth(self.rewards, self.windows)
        self.reward_weights = weights_of(self.rewards, args)
        eta = pipeline.scheduler.config.eta if args.eta is None else args.eta
        self.steps = transitions(self.rollout_scheduler, args.num_sampling_steps, eta)
        probe = self.conditions([0])
        resting = MotionState.unpack(self._resting(probe.mask), self.denoiser.state_layout)
        check_differentiable(self.rewards, self.reward_inputs(resting, probe))
        self.logged = defaultdict(list)
        super().__init__(
            model=self.policy,
            args=args,
            data_collator=self.collate,
            train_dataset=NumberedConditions(self.windows),
            eval_dataset=self.eval_clips or None,
            callbacks=callbacks,
        )
        self.follow()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict]:
        """Minus the weighted rewards of fresh samples of these conditions."""
        numbers = inputs["condition"].tolist()
        truth = self.conditions(numbers)
        found = self.sample(model, truth, numbers)
        with torch.autocast(truth.mask.device.type, enabled=False):
            loss = sum((self._loss(clean, truth) for clean in found), torch.zeros((), device=truth.mask.device))
        loss = loss / len(found)
        return (loss, {}) if return_outputs else loss

    def sample(
        self, model: nn.Module, truth: Conditions, numbers: Sequence[int]
    ) -> list[Float[Tensor, "batch frames d_state"]]:
        """Clean states to reward, with their gradients: the finished motions, or what each of the K steps predicts.

        Args:
            model: the policy, as accelerate wrapped it.
            truth: the conditions.
            numbers: of the conditions; the noise of each is a function of its number and the number of the update.
        """
        args, device = self.args, truth.mask.device
        streams = [generator_of(args.seed, self.state.global_step, "sample", number) for number in numbers]
        shape = (args.window, self.denoiser.state_layout.dim)

        def noise() -> Float[Tensor, "batch frames d_state"]:
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)

        cond, rows = self.denoiser.condition(truth.head), torch.arange(len(numbers), device=device)
        latents, predicted = noise(), []
        for number, step in enumerate(self.steps):
            learns = number >= len(self.steps) - args.backprop_steps
            with contextlib.nullcontext() if learns else torch.no_grad():
                clean = model(latents, step.level, cond, truth.mask, rows)
            if learns and args.backprop == "steps":
                predicted.append(clean)
                clean = clean.detach()
            latents = step.mean(clean, latents)
            if step.std > 0:
                latents = latents + step.std * noise()
        return predicted or [latents]

    def _loss(self, clean: Float[Tensor, "batch frames d_state"], truth: Conditions) -> Float[Tensor, ""]:
        layout = self.denoiser.state_layout
        # What lies in frames that do not exist has no gradient, or one bad value there would spoil them all.
        clean = torch.where(truth.mask[..., None], clean, self._resting(truth.mask))
        values = score_with_gradient(self.rewards, self.reward_inputs(MotionState.unpack(clean, layout), truth))
        loss = torch.zeros((), device=clean.device)
        for weight, (name, value) in zip(self.reward_weights, values.items(), strict=True):
            everybody = self.gather(value.detach())
            spread = float(everybody.std(correction=0))
            scale = max(spread, 1e-4) if self.args.reward_normalization == "std" else 1.0
            loss = loss - weight * value.mean() / scale
            self.logged[f"rewards/{name}/mean"].append(float(everybody.mean()))
            self.logged[f"rewards/{name}/std"].append(spread)
        return loss

    def _resting(self, mask: Bool[Tensor, "batch frames"]) -> Float[Tensor, "batch frames d_state"]:
        """The rest pose of the mean body, in every frame."""
        identity = torch.eye(3, device=mask.device).expand(*mask.shape, NUM_BODY_JOINTS + NUM_HAND_JOINTS, 3, 3)
        body, hands = identity.split([NUM_BODY_JOINTS, NUM_HAND_JOINTS], dim=2)
        zeros = torch.zeros(*mask.shape, NUM_BETAS + NUM_BODY_JOINTS, device=mask.device)
        betas, contacts = zeros.split([NUM_BETAS, NUM_BODY_JOINTS], dim=-1)
        return MotionState(betas, body, contacts, hands).pack(self.denoiser.state_layout)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the rewards, averaged since the last log, and how many updates were skipped."""
        if "loss" in logs:
            means = self.means_of_logged()
            weighted = zip(self.reward_weights, self.rewards, strict=True)
            total = sum(weight * means[f"rewards/{name}/mean"] for weight, name in weighted)
            logs |= {"reward": total, **means}
        super().log(logs, start_time)
