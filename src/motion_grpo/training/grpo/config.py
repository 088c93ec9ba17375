"""Settings of :class:`~motion_grpo.training.MotionGRPOTrainer`."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from motion_grpo.training.grpo.exploration import EXPLORATION
from motion_grpo.training.grpo.objective import AGGREGATIONS, CREDITS, REDUCTIONS, STEP_WEIGHTS
from motion_grpo.training.grpo.perlin import FREQUENCY
from motion_grpo.training.policy_settings import PolicySettings, refuse_first
from motion_grpo.training.settings import WITHOUT_EFFECT_GRPO, refuse_without_effect

NARROWEST_CLIP = {"sequence": 0.0, "frame": 1e-3, "joint": 1e-2}
"""By credit, the clip range that a rollout of several updates needs under ``mean``: the fewer numbers a ratio is the
mean of, the further one update moves it."""
LAST_STEP_CLIP = 0.2
"""The same where the last step explores: its noise is so small that one update moves the mean by a quarter of it."""
_CHOICES = {
    "credit": CREDITS,
    "exploration": EXPLORATION,
    "aggregation": AGGREGATIONS,
    "log_prob_reduction": REDUCTIONS,
    "step_weights": STEP_WEIGHTS,
    "variance": ("jump", "single_level"),
}


@dataclass
class MotionGRPOConfig(PolicySettings, GRPOConfig):
    """Settings beyond those of TRL; the defaults are the paper's where it tells them (Appendix C).

    Batch sizes count samples, as in TRL: ``per_device_train_batch_size`` x processes x
    ``gradient_accumulation_steps`` = conditions of an update x ``num_generations``.

    Raises:
        ValueError: settings that contradict each other or have no meaning, and settings of TRL and transformers that
            have no effect here (:data:`~motion_grpo.training.settings.WITHOUT_EFFECT_GRPO`).
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "AdamW's."})
    num_generations: int = field(default=16, metadata={"help": "Samples of a condition, the group size (G)."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Samples of a forward pass of the update, on a device."}
    )
    gradient_accumulation_steps: int = field(
        default=16, metadata={"help": "Such passes an update; the default makes 64 conditions on one device."}
    )
    num_generations_eval: int = field(default=1, metadata={"help": "Has no effect."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Less memory for about a third more time."})
    bf16: bool = field(
        default=False,
        metadata={"help": "Forward passes in bfloat16; densities and kinematics stay float32."},
    )
    epsilon: float = field(
        default=1e-4,
        metadata={"help": "Clip range of the ratio; depends on log_prob_reduction: 0.2 with 'mean' never binds."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})

    eta: float = field(default=1.0, metadata={"help": "Stochasticity of the steps that explore, above 0 to 1."})
    variance: str = field(
        default="jump",
        metadata={"help": "Of those steps: jump, of the whole step, or single_level, EgoAllo's; see the scheduler."},
    )
    direction_offset: float = field(default=0.0, metadata={"help": "Likewise; EgoAllo's: 0.1."})
    project_rotations: bool = field(
        default=True, metadata={"help": "Make the predicted rotations proper in each step; else at the end alone."}
    )
    head_noise: float = field(
        default=0.1, metadata={"help": "Lambda: meters that Perlin noise moves the head the policy sees; 0 is none."}
    )
    head_noise_frequency: float = field(default=FREQUENCY, metadata={"help": "Its cells per second."})
    head_noise_octaves: int = field(default=1, metadata={"help": "Its octaves."})
    head_noise_per_sample: bool = field(
        default=False, metadata={"help": "Another perturbation for every sample instead of one a condition."}
    )

    reward_smooth_frames: int = field(
        default=9, metadata={"help": "Frames that a reward per frame is averaged over, for credit 'frame' and 'joint'."}
    )
    aggregation: str = field(
        default="mean", metadata={"help": "mean (Algorithm 1), sum, sum_then_normalize or normalize_then_sum."}
    )
    group_std_floor: float = field(
        default=1e-4, metadata={"help": "A reward whose std in a group is below gives that group no advantage."}
    )
    advantage_clip: float | None = field(default=5.0, metadata={"help": "Largest absolute advantage; None: no limit."})
    credit: str = field(
        default="sequence",
        metadata={"help": "sequence (the paper), frame or joint: what gets its own advantage and ratio."},
    )

    exploration: str = field(
        default="white",
        metadata={
            "help": "white (the paper); smooth_credit: only low frequencies count; smooth: members differ by those."
        },
    )
    exploration_components: int = field(default=8, metadata={"help": "Temporal frequencies that are low."})
    train_betas: bool = field(
        default=True, metadata={"help": "Whether betas (body size) have a density; else only shared weights move them."}
    )
    last_step_std: float = field(
        default=0.0,
        metadata={"help": "Beyond the paper: noise on the clean state, so that the last step is trained too."},
    )
    log_prob_reduction: str = field(
        default="mean", metadata={"help": "mean or sum of the log density over a state's numbers."}
    )
    step_weights: str = field(
        default="raw", metadata={"help": "raw (the paper), or even: every step's score has the same size."}
    )
    timestep_fraction: float = field(default=1.0, metadata={"help": "Share of the stochastic steps that is trained."})
    sde_window_size: int | None = field(
        default=None,
        metadata={
            "help": "Only so many steps are stochastic and trained; all but the last if unset. 0: only the last is, by "
            "last_step_std."
        },
    )
    sde_window_start: int | None = field(
        default=None, metadata={"help": "First of them, from 0; another at every rollout if unset."}
    )

    def __post_init__(self) -> None:
        refuse_without_effect(self, WITHOUT_EFFECT_GRPO)
        self.check_policy()
        for name, choices in _CHOICES.items():
            if (value := vars(self)[name]) not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        self._check_rollout()
        self._check_training()
        super().__post_init__()
        self.eval_on_start = self.eval_on_start and self.eval_strategy != "no"
        self._check_batches()
        self._check_reuse()

    def _check_rollout(self) -> None:
        refuse_first(
            (
                self.num_generations < 2,
                f"num_generations is {self.num_generations}; a group needs 2 samples or more to be compared.",
            ),
            (
                self.num_sampling_steps < 2,
                f"num_sampling_steps is {self.num_sampling_steps}; the last step is deterministic, so 2 are needed for "
                "one that can be trained.",
            ),
            (
                not 0 < self.eta <= 1,
                f"eta is {self.eta}; it must be above 0 (a deterministic step has no density to improve) and at most "
                "1.",
            ),
            (self.direction_offset < 0, f"direction_offset is {self.direction_offset}; it must be 0 or more."),
            (self.head_noise < 0, f"head_noise is {self.head_noise} m; it must be 0 or more."),
            (
                self.head_noise_frequency <= 0,
                f"head_noise_frequency is {self.head_noise_frequency} cells a second; it must be above 0.",
            ),
            (
                self.head_noise_octaves < 1,
                f"head_noise_octaves is {self.head_noise_octaves}; it must be 1 or more.",
            ),
            (
                not 1 <= self.exploration_components <= self.window,
                f"exploration_components is {self.exploration_components}; a window has {self.window} frequencies.",
            ),
            (self.last_step_std < 0, f"last_step_std is {self.last_step_std}; it must be 0 or more."),
        )
        self._check_sde_window()

    def _check_sde_window(self) -> None:
        size, start = self.sde_window_size, self.sde_window_start
        stochastic = self.num_sampling_steps - 1
        refuse_first(
            (
                size is None and start is not None,
                f"sde_window_start is {start}, but sde_window_size is not set; set both or neither.",
            ),
            (
                size is not None and not 0 <= size <= stochastic - (start or 0),
                f"sde_window_size is {size} from step {start or 0} on, but of {self.num_sampling_steps} steps only the "
                f"first {stochastic} can be stochastic.",
            ),
            (
                size == 0 and self.last_step_std == 0,
                "sde_window_size is 0 and so is last_step_std: no step would have a density; set last_step_std above 0 "
                "to explore at the last step alone, or sde_window_size to 1 or more.",
            ),
            ((start or 0) < 0, f"sde_window_start is {start}; steps count from 0."),
        )

    def _check_training(self) -> None:
        refuse_first(
            (
                not 0 < self.timestep_fraction <= 1,
                f"timestep_fraction is {self.timestep_fraction}; it must be above 0 and at most 1.",
            ),
            (self.group_std_floor <= 0, f"group_std_floor is {self.group_std_floor}; it must be above 0."),
            (
                self.advantage_clip is not None and self.advantage_clip <= 0,
                f"advantage_clip is {self.advantage_clip}; it must be above 0, or None for no limit.",
            ),
            (
                self.reward_smooth_frames < 1,
                f"reward_smooth_frames is {self.reward_smooth_frames}; it must be 1 (no smoothing) or more.",
            ),
            (self.beta < 0, f"beta is {self.beta}; it must be 0 (no KL divergence) or more."),
            *(
                (
                    value is not None and value <= 0,
                    f"{name} is {value}; it must be above 0, or nothing could be learned.",
                )
                for name, value in (("epsilon", self.epsilon), ("epsilon_high", self.epsilon_high))
            ),
        )

    def _check_batches(self) -> None:
        if (self.steps_per_generation * self.num_iterations) % self.gradient_accumulation_steps:
            raise ValueError(
                f"steps_per_generation x num_iterations is {self.steps_per_generation * self.num_iterations} passes, "
                f"not a multiple of gradient_accumulation_steps {self.gradient_accumulation_steps}: an update would "
                "mix two rollouts."
            )

    def _check_reuse(self) -> None:
        """From a rollout's second update on, ratios have to stay within the clip range for anything to be learned."""
        updates = self.steps_per_generation * self.num_iterations // self.gradient_accumulation_steps
        if updates == 1:
            return
        reused = (
            f"A rollout serves {updates} updates (num_iterations {self.num_iterations}, steps_per_generation "
            f"{self.steps_per_generation}, gradient_accumulation_steps {self.gradient_accumulation_steps})"
        )
        once = "set num_iterations to 1 and leave steps_per_generation out"
        if self.last_step_std > 0 and self.log_prob_reduction == "sum":
            raise ValueError(
                f"{reused}, but with last_step_std {self.last_step_std} a single one moves summed log densities by "
                f"many nats, so that the next would only be clipped; set log_prob_reduction to 'mean', or {once}."
            )
        narrowest = NARROWEST_CLIP[self.credit] if self.last_step_std == 0 else LAST_STEP_CLIP
        epsilon = min(self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high)
        if self.log_prob_reduction == "mean" and epsilon < narrowest:
            raise ValueError(
                f"{reused}, but with credit {self.credit!r} and last_step_std {self.last_step_std} a single one moves "
                f"ratios beyond the clip range of {epsilon}, so that the next would mostly undo it; set epsilon to "
                f"{narrowest} or more, or {once}."
            )

    @property
    def conditions_per_generation(self) -> int:
        """Conditions of a rollout, on all processes together."""
        return self.generation_batch_size // self.num_generations
