"""Variance-preserving x0-diffusion as a Markov decision process: sampling steps that can also be scored.

Noise levels and timesteps. A clean state has noise level 0, training noise has levels 1..N (N = 1000), and level k has
seen the first k alphas: ``alpha_bars[k] = prod_{j<=k} (1 - beta_j)``, ``alpha_bars[0] = 1`` (EgoAllo's counting; its
denoiser is called with levels). ``EgoMotionSDEScheduler.timesteps`` ARE noise levels. Schedulers of diffusers count the
same noise from 0: their timestep t is level t + 1, and their step past timestep 0 is the step to level 0.
``noise_level(scheduler, t)`` is what to tell the denoiser at timestep t of either kind.

diffusers' own schedulers run on the same noise: the configuration says so in their words (``squaredcos_cap_v2``,
``sample``, no clipping), and only the quadratic spacing has to be replaced::

    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    DDIMScheduler(trained_betas=scheduler.betas.tolist(), prediction_type="sample", clip_sample=False)  # or by hand
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from motion_grpo.hub import HubMixin

_CONFIG_THAT_FITS = {
    "prediction_type": ("sample",),
    "clip_sample": (False,),
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "use_flow_sigmas": (False, None),
    "timestep_spacing": ("linspace", "leading", "trailing"),
}
"""Of diffusers' schedulers, where they have it."""

COMPATIBLE = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)
"""Those of diffusers' schedulers that take x0-prediction and end at x0."""

Levels = int | Int[Tensor, ""] | Int[Tensor, " batch"]
"""One noise level for all rows, or one a row."""


@dataclass
class EgoMotionSDESchedulerOutput(BaseOutput):
    """One transition x_t -> x_next. float32 whatever the network's dtype: a rounded state has another density."""

    prev_sample: Float32[Tensor, " batch *state"]
    """The next state: drawn, or the one that was given to be scored. The next step's ``sample``."""
    pred_original_sample: Float32[Tensor, " batch *state"]
    """The denoiser's clean state x0."""
    prev_sample_mean: Float32[Tensor, " batch *state"]
    """Mean of the transition; differentiable with respect to the denoiser's output."""
    std: Float32[Tensor, " rows *ones"]
    """Standard deviation of the transition, one a row (or one for all rows), broadcastable over the state."""
    log_prob: Float32[Tensor, " batch *state"] | None = None
    """Natural log density of every element of ``prev_sample``: reduce it over state dimensions and unmasked frames as
    the objective asks. Gradients flow through the mean only. None if the ``std`` of a row is 0: it has no density."""


class EgoMotionSDEScheduler(HubMixin, SchedulerMixin, ConfigMixin):
    r"""Discretized reverse SDE of MotionGRPO (Eq. 7) with exact transition densities; EgoAllo's sampler is a setting.

    A step from level t to the next level n of the schedule, with :math:`\bar\alpha` the product of the alphas, is

    .. math:: x_n = \sqrt{\bar\alpha_n} x_0 + \sqrt{1 - \bar\alpha_n - s^2}\,
              \frac{x_t - \sqrt{\bar\alpha_t} x_0}{\sqrt{1 - \bar\alpha_t + \mathrm{offset}}} + s z

    - ``variance="jump"``: :math:`s = \eta \sqrt{(1-\bar\alpha_n)/(1-\bar\alpha_t)} \sqrt{1-\bar\alpha_t/\bar\alpha_n}`
      (DDIM, Song et al. 2020, Eq. 12 and 16). eta is the stochasticity :math:`\epsilon_t` of Eq. 7: 0 follows the
      ODE, 1 draws from the ancestral posterior q(x_n | x_t, x_0) of the whole jump.
    - ``variance="single_level"``: :math:`s = \eta \sqrt{(1-\bar\alpha_{t-1})/(1-\bar\alpha_t) (1-\alpha_t)}`, the
      posterior of one level however far the step goes. With eta 0.8 and offset 0.1 this is EgoAllo's sampler: see
      ``egoallo()``. Group members hardly differ under it (s is 0.088 at 841 -> 784, the jump's is 0.652).

    The step to level 0 is always deterministic: it returns x0. Coefficients are float64, applied in float32.

    Args:
        num_train_timesteps: N, number of noise levels.
        beta_schedule: ``"squaredcos_cap_v2"``, the cosine schedule (s = 0.008, betas clipped at 0.999); the only one.
        prediction_type: ``"sample"``, the network predicts x0; the only one.
        timestep_spacing: ``"quadratic"`` (EgoAllo: k^2 for k = 30..1 with the first replaced by 1000, see
            ``set_timesteps``), ``"leading"`` or ``"trailing"`` (as in diffusers).
        eta: stochasticity where ``step`` is not told another; 0 or more.
        variance: ``"jump"`` or ``"single_level"``.
        direction_offset: added to the variance that the step's direction is divided by; 0 is exact diffusion.
        clip_sample: False, for diffusers' schedulers to read: their default would clip a motion state to [-1, 1].

    Raises:
        ValueError: an argument outside of what is listed above.
    """

    _compatibles = list(COMPATIBLE)  # noqa: RUF012  (diffusers' name)
    order = 1
    init_noise_sigma = 1.0  # sampling starts from a standard normal state

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "squaredcos_cap_v2",
        prediction_type: str = "sample",
        timestep_spacing: str = "quadratic",
        eta: float = 1.0,
        variance: str = "jump",
        direction_offset: float = 0.0,
        clip_sample: bool = False,
    ) -> None:
        if num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps is {num_train_timesteps}; at least one noise level is needed.")
        if (beta_schedule, prediction_type, clip_sample) != ("squaredcos_cap_v2", "sample", False):
            raise ValueError(
                f"beta_schedule={beta_schedule!r}, prediction_type={prediction_type!r}, clip_sample={clip_sample}: "
                "there are only 'squaredcos_cap_v2', 'sample' and False."
            )
        _check_choice("timestep_spacing", timestep_spacing, ("quadratic", "leading", "trailing"))
        _check_choice("variance", variance, ("jump", "single_level"))
        _check_not_negative("eta", eta)
        _check_not_negative("direction_offset", direction_offset)
        # diffusers drops what was left at its default when another class reads this configuration in memory, and would
        # then fall back to ITS defaults (linear betas, epsilon-prediction, clipping): only what no other class knows
        # may be dropped.
        if left := self.config.get("_use_default_values"):
            ours = [name for name in ("eta", "variance", "direction_offset") if name in left]
            self.register_to_config(_use_default_values=ours)

        x = torch.linspace(0, 1, num_train_timesteps + 1, dtype=torch.float64)
        cosine = torch.cos((x + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - cosine[1:] / cosine[:-1]).clamp(0, 0.999)
        self.alpha_bars: Tensor = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])
        """(N + 1,) float64, by noise level; ``alpha_bars[0] = 1``."""
        # These two are (N,), float32 and indexed like diffusers': entry t belongs to level t + 1.
        self.betas: Tensor = betas.float()
        self.alphas_cumprod: Tensor = self.alpha_bars[1:].float()

        self.num_inference_steps: int | None = None
        self.levels: Tensor = torch.arange(num_train_timesteps, -1, -1)
        """(n + 1,) int64 on the CPU: noise levels of the schedule, largest first, 0 last."""
        self.timesteps: Tensor = self.levels[:-1]
        """(n,) int64: the noise levels to call the denoiser with, ``levels`` without the 0."""

    @classmethod
    def egoallo(cls, **config) -> "EgoMotionSDEScheduler":
        """EgoAllo's sampler (Yi et al., CVPR 2025; 30 steps there).

        Quadratic levels, one-level posterior noise times 0.8, and 0.1 under the root of the direction; ``config``
        replaces single settings.
        """
        settings = {"timestep_spacing": "quadratic", "eta": 0.8, "variance": "single_level", "direction_offset": 0.1}
        return cls(**{**settings, **config})

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: list[int] | Int[Tensor, " steps"] | None = None,
    ) -> None:
        """Chooses the noise levels of a rollout; the last step always ends at level 0.

        The k-th level from the end of n, out of N, is: quadratic, 0.9 N (k / n)^2, rounded, kept distinct, the first
        replaced by N (EgoAllo's k^2 for 30 of 1000); leading, 1 + (k - 1) floor(N / n); trailing, N k / n, rounded.

        Args:
            num_inference_steps: n, in 1..N.
            device: where ``timesteps`` goes.
            timesteps: noise levels in place of n, strictly decreasing, in 1..N; a final 0 may be left out.

        Raises:
            ValueError: not exactly one of ``num_inference_steps`` and ``timesteps``, or levels that do not fit.
        """
        N = self.config.num_train_timesteps
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Give set_timesteps either num_inference_steps or timesteps (noise levels), and not both.")
        if timesteps is not None:
            custom = [int(level) for level in timesteps]
            levels = np.array(custom if custom[-1:] == [0] else [*custom, 0])
            if len(levels) < 2 or levels[0] > N or levels[-2] < 1 or (np.diff(levels) >= 0).any():
                raise ValueError(f"timesteps must be noise levels in {N}..1, strictly decreasing; got {custom}.")
        else:
            n = num_inference_steps
            if not 1 <= n <= N:
                raise ValueError(f"num_inference_steps is {n}; it must be in 1..{N}, the noise levels of the training.")
            k = np.arange(1, n + 1)
            if self.config.timestep_spacing == "quadratic":
                rising = np.round(0.9 * N * k**2 / n**2)
                rising = np.maximum.accumulate(rising.clip(min=1) - k) + k  # distinct where the square is too dense
                rising[-1] = N
            elif self.config.timestep_spacing == "leading":
                rising = 1 + (k - 1) * (N // n)
            else:
                rising = np.round(N * k / n)
            levels = np.concatenate([[0], rising])[::-1]
        self.levels = torch.from_numpy(levels.astype(np.int64))
        self.timesteps = self.levels[:-1].to(device)
        self.num_inference_steps = len(self.timesteps)

    def previous_timestep(self, timestep: int | Int[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
        """The level that a step from ``timestep`` leads to: its successor in the schedule, 0 after the last; by row.

        Raises:
            ValueError: a level that is not in the schedule.
        """
        level = torch.as_tensor(timestep)
        return self._successor(level.reshape(-1).to("cpu", torch.int64)).reshape(level.shape).to(level.device)

    def scale_model_input(self, sample: Float[Tensor, "*any"], timestep: Levels | None = None) -> Float[Tensor, "*any"]:
        """The state itself: this diffusion preserves variance. There for interchangeability with diffusers."""
        return sample

    def add_noise(
        self,
        original_samples: Float[Tensor, " batch *state"],
        noise: Float[Tensor, " batch *state"],
        timesteps: Levels,
    ) -> Float32[Tensor, " batch *state"]:
        """The forward process, sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise (Sec. 3.1).

        Noise levels are 0..N, one for all rows or one a row.

        Raises:
            ValueError: a level outside of 0..N, or their number differs from the number of rows.
        """
        level = self._rows(timesteps, original_samples, "timesteps", lowest=0)
        alpha_bar = self.alpha_bars[level]
        signal, std = (_per_row(c, original_samples) for c in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
        return signal * original_samples.float() + std * noise.float()

    def step(
        self,
        model_output: Float[Tensor, " batch *state"],
        timestep: Levels,
        sample: Float[Tensor, " batch *state"],
        eta: float | None = None,
        *,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Float[Tensor, " batch *state"] | None = None,
        prev_sample: Float[Tensor, " batch *state"] | None = None,
        prev_timestep: Levels | None = None,
        return_dict: bool = True,
    ) -> EgoMotionSDESchedulerOutput | tuple:
        """Draws the next state, or scores a given one, under N(mean(x_t, x0), std^2) of the transition.

        A row's mean is the same to the last bit whether it is stepped alone or among rows at other levels, and whether
        its next state is drawn or scored: the first ratio of densities in post-training is exactly 1.

        Args:
            model_output: the denoiser's clean state x0.
            timestep: noise level of ``sample``, in 1..N; one for all rows, or one a row.
            sample: noisy state x_t.
            eta: stochasticity, the configuration's where None.
            generator: draws the noise; a list has one generator a row, which makes a row independent of its batch.
            variance_noise: standard normal noise to use in place of a generator's.
            prev_sample: the next state to score; nothing is drawn.
            prev_timestep: level to step to, below ``timestep``, in place of the successor in the schedule (``timestep``
                need not be in the schedule then); one for all rows, or one a row.
            return_dict: False returns the output's fields as a tuple, in their order, without those that are None.

        Raises:
            ValueError: a level that is not in the schedule, a negative eta or one too large for the step, shapes that
                differ, two sources of the next state, or a ``prev_sample`` for a step without noise (no density).
        """
        eta = self.config.eta if eta is None else eta
        _check_not_negative("eta", eta)
        if sum(source is not None for source in (generator, variance_noise, prev_sample)) > 1:
            raise ValueError("The next state has one source: give one of generator, variance_noise and prev_sample.")
        for tensor in (model_output, variance_noise, prev_sample):
            if tensor is not None and tensor.shape != sample.shape:
                raise ValueError(f"sample is {tuple(sample.shape)}, but another state of it {tuple(tensor.shape)}.")
        if isinstance(generator, list) and len(generator) != len(sample):
            raise ValueError(f"{len(generator)} generators for {len(sample)} rows; give one a row, or a single one.")

        level = self._rows(timestep, sample, "timestep", lowest=1)
        given = prev_timestep is not None
        next_level = self._rows(prev_timestep, sample, "prev_timestep", lowest=0) if given else self._successor(level)
        original_weight, sample_weight, std = self._transition(level, next_level, eta)
        noiseless = (std == 0).nonzero().flatten().tolist()
        if prev_sample is not None and noiseless:
            remedy = "leave out steps to level 0 and steps with eta 0"
            raise ValueError(f"prev_sample has no density where the step has std 0, row(s) {noiseless[:8]}: {remedy}.")

        original = model_output.float()
        mean = _per_row(original_weight, sample) * original + _per_row(sample_weight, sample) * sample.float()
        std = _per_row(std, sample)
        if prev_sample is not None:
            prev_sample = prev_sample.float()
        elif len(noiseless) == len(std):
            prev_sample = mean
        else:
            if variance_noise is None:
                variance_noise = randn_tensor(sample.shape, generator, device=sample.device, dtype=torch.float32)
            prev_sample = mean + std * variance_noise.float()
        log_prob = None
        if not noiseless:
            # Detached: along a drawn state's own dependence on the mean the score gradient would cancel to zero.
            log_prob = torch.distributions.Normal(mean, std, validate_args=False).log_prob(prev_sample.detach())
        output = EgoMotionSDESchedulerOutput(prev_sample, original, mean, std, log_prob)
        return output if return_dict else output.to_tuple()

    def _transition(
        self, level: Int64[Tensor, "#rows"], next_level: Int64[Tensor, "#rows"], eta: float
    ) -> tuple[Float32[Tensor, " rows"], Float32[Tensor, " rows"], Float32[Tensor, " rows"]]:
        """Weights of x0 and x_t in the mean, and the std, per row, on the CPU."""
        level, next_level = torch.broadcast_tensors(level, next_level)
        if (upward := next_level >= level).any():
            row = int(upward.nonzero()[0])
            raise ValueError(f"Row {row} steps from level {level[row]} to {next_level[row]}, which is not lower.")
        alpha_bar, next_alpha_bar = self.alpha_bars[level], self.alpha_bars[next_level]
        if self.config.variance == "jump":
            posterior = (1 - next_alpha_bar) / (1 - alpha_bar) * (1 - alpha_bar / next_alpha_bar)
        else:
            below = self.alpha_bars[level - 1]
            posterior = (1 - below) / (1 - alpha_bar) * (1 - alpha_bar / below)
            posterior = posterior.where(next_level > 0, 0)
        variance = eta**2 * posterior
        remaining = 1 - next_alpha_bar - variance
        if (short := remaining < -1e-9).any():
            row = int(short.nonzero()[0])
            raise ValueError(
                f"eta={eta} with variance={self.config.variance!r} adds more noise in the step from level {level[row]} "
                f"than level {next_level[row]} holds; use a smaller eta, more steps, or variance='jump' with eta <= 1."
            )
        sample_weight = (remaining.clamp(min=0) / (1 - alpha_bar + self.config.direction_offset)).sqrt()
        original_weight = next_alpha_bar.sqrt() - sample_weight * alpha_bar.sqrt()
        return original_weight.float(), sample_weight.float(), variance.sqrt().float()

    def _successor(self, level: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        hits = level[:, None] == self.levels[:-1]
        if (unknown := ~hits.any(dim=1)).any():
            raise ValueError(
                f"Noise level(s) {level[unknown].unique().tolist()[:8]} are not in the current schedule of "
                f"{len(self.levels) - 1} steps; call set_timesteps with them, or pass prev_timestep to step."
            )
        return self.levels[1:][hits.int().argmax(dim=1)]

    def _rows(
        self, timestep: int | Int[Tensor, "..."], sample: Float[Tensor, " batch *state"], name: str, lowest: int
    ) -> Int64[Tensor, " rows"]:
        """``timestep`` as one level (1,) or a level a row (batch,), checked, on the CPU."""
        level = torch.as_tensor(timestep, dtype=torch.int64, device="cpu").reshape(-1)
        if len(level) not in (1, len(sample)):
            raise ValueError(f"{name} has {len(level)} entries for {len(sample)} rows; give one, or one a row.")
        N = self.config.num_train_timesteps
        if level.min() < lowest or level.max() > N:
            raise ValueError(f"{name} is a noise level in {lowest}..{N}, but spans {level.min()}..{level.max()}.")
        return level


def noise_level(scheduler: SchedulerMixin, timestep: int | Int[Tensor, "*batch"]) -> int | Int[Tensor, "*batch"]:
    """The noise level, 1..N, to call the denoiser with at a timestep of this library's scheduler or of diffusers'."""
    return timestep if isinstance(scheduler, EgoMotionSDEScheduler) else timestep + 1


def refuse_incompatible(scheduler: SchedulerMixin, num_levels: int) -> None:
    """Raises ValueError for a scheduler that would take the denoiser's answer, or the noise, for something else.

    diffusers' schedulers run on what they are given without a word, and end anywhere.

    Args:
        scheduler: this library's, or one of diffusers'.
        num_levels: noise levels that the denoiser was trained on.
    """
    name = type(scheduler).__name__
    fits = "one that does is DDIMScheduler.from_config(EgoMotionSDEScheduler().config, timestep_spacing='trailing')"
    if not isinstance(scheduler, (EgoMotionSDEScheduler, *EgoMotionSDEScheduler().compatibles)):
        choices = ", ".join(COMPATIBLE)
        raise ValueError(
            f"{name} cannot sample with this denoiser, but EgoMotionSDEScheduler and diffusers' {choices} can; {fits}."
        )
    config = scheduler.config
    if config.num_train_timesteps != num_levels:
        raise ValueError(
            f"The {name} has num_train_timesteps={config.num_train_timesteps}, but the denoiser was trained on "
            f"{num_levels} noise levels; {fits}."
        )
    if isinstance(scheduler, EgoMotionSDEScheduler):
        return
    wrong = [
        f"{key}={config[key]!r}"
        for key, right in _CONFIG_THAT_FITS.items()
        if key in config and config[key] not in right
    ]
    noise = EgoMotionSDEScheduler(num_levels).alphas_cumprod
    if not wrong and not torch.allclose(scheduler.alphas_cumprod.cpu().float(), noise, rtol=0, atol=1e-4):
        wrong = [f"betas of another noise schedule (beta_schedule={config.beta_schedule!r})"]
    if wrong:
        raise ValueError(f"The {name} has {wrong[0]}, which does not fit this denoiser; {fits}.")


def _per_row(coefficient: Tensor, sample: Tensor) -> Tensor:
    """(rows,) -> (rows, 1, ..., 1) float32, beside the state."""
    return coefficient.float().to(sample.device).reshape(-1, *[1] * (sample.ndim - 1))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be 0 or more.")
