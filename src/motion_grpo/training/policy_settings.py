"""Settings that all trainers of a policy share: rollouts, rewards, what is trained, and evaluation."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from motion_grpo.training.settings import mapping

ALL_WEIGHTS = ["*"]


@dataclass
class PolicySettings:
    """A part of the configuration of :class:`~motion_grpo.training.MotionGRPOTrainer` and its siblings."""

    window: int = field(default=128, metadata={"help": "Frames of a condition (T)."})
    num_sampling_steps: int = field(default=10, metadata={"help": "Steps of a rollout (n)."})
    timestep_spacing: str | None = field(
        default=None, metadata={"help": "Noise levels of a rollout: quadratic, leading, trailing; the pipeline's own."}
    )

    rewards: list[str] = field(
        default_factory=lambda: ["visual", "rotation", "position", "aligned_position", "velocity"],
        metadata={"help": "Names, see motion_grpo.rewards; module:function for one's own."},
    )
    reward_weights: list[float] | None = field(
        default=None,
        metadata={"help": "One a reward: of its advantage in GRPO, else of itself; 1 for all if unset."},
    )
    reward_omegas: dict | str | None = field(
        default_factory=dict,
        metadata={
            "help": "Omega by name, as in exp(-omega error); else the paper's: 1, 1, 1, 0.5, 1. On the command line "
            "'{\"rotation\": 2.0}'."
        },
    )
    perceptual_model: str | None = field(
        default=None, metadata={"help": "Perceptual model that the reward 'visual' asks."}
    )

    trainable: list[str] = field(
        default_factory=lambda: list(ALL_WEIGHTS),
        metadata={"help": "Patterns of weights' names to train; one that begins with ! takes away: '*' '!decoders.*'."},
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of a LoRA adapter to train; 0 trains all weights."})
    lora_alpha: int = field(default=32, metadata={"help": "Its scale, over the rank."})
    ema_decay: float = field(
        default=0.0, metadata={"help": "Of averaged weights, which are evaluated and shipped then; 0 is none."}
    )
    eval_on_start: bool = field(
        default=True, metadata={"help": "Evaluate the base before the first update, unless eval_strategy is 'no'."}
    )
    eval_num_inference_steps: int | None = field(
        default=None, metadata={"help": "Sampling steps of the evaluation; the pipeline's own if unset."}
    )

    def check_policy(self) -> None:
        """Refuses what has no meaning, and reads what a command line gives as text.

        Raises:
            ValueError: with the sentence of the first setting that has none.
        """
        self.reward_omegas = mapping("reward_omegas", self.reward_omegas or {})
        for name, omega in self.reward_omegas.items():
            if isinstance(omega, bool) or not isinstance(omega, int | float) or not 0 < omega < float("inf"):
                raise ValueError(f"reward_omegas has {omega!r} for {name!r}; an omega is a number above 0.")
        refuse_first(
            (self.window < 4, f"window is {self.window} frames; at least 4 are needed."),
            (not 0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; it must be in [0, 1)."),
            (self.lora_r < 0, f"lora_r is {self.lora_r}; it must be 0 (all weights) or more."),
            (
                self.lora_r > 0 and self.trainable != ALL_WEIGHTS,
                f"trainable is {self.trainable}, but with lora_r {self.lora_r} the adapter alone is trained; leave one "
                "of them out.",
            ),
        )


@dataclass
class NumberedSettings(PolicySettings, TrainingArguments):
    """Settings of a trainer that takes each number of its batches once, beside those of transformers."""

    @property
    def numbers_per_update(self) -> int:
        """Conditions or pairs of an update, on all processes together."""
        return self.train_batch_size * self.gradient_accumulation_steps * self.world_size


def refuse_first(*rules: tuple[bool, str]) -> None:
    """Raises ValueError with the sentence of the first rule that is broken."""
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)
