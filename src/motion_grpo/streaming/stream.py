"""A stream of head poses in, a stream of bodies out: the pipeline's network, a frame at a time."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.rollout import predict_clean, transitions
from motion_grpo.inference.wearer import known_betas, reads_wrists
from motion_grpo.models.conditioning import WristPoses
from motion_grpo.motion import FPS, MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.streaming.body_pose import BodyPose
from motion_grpo.streaming.frames import Frame, FrameClock, Wrists
from motion_grpo.trajectory.checks import ArrayLike
from motion_grpo.trajectory.head_poses import HeadPoses

_SMOOTHING, _REACH = 1.0, 3
"""Frames: the width of the Gaussian mean that a body is of its neighbors, and how far it reaches, at most the lag. It
takes a lag of 6 from 1.2 times the jitter of a whole recovery to 1.0, for 0.1 mm of error."""


@dataclass(frozen=True)
class StreamConfig:
    """How a stream trades delay and work for quality; docs/live.md has the numbers."""

    lag: int = 6
    """Frames of 1/30 s that the body comes after the head."""
    num_inference_steps: int = 1
    """Sampling steps of each frame."""
    window: int | None = None
    """Frames that the network looks back on, at most; as many as it was trained on when None."""
    start_after: int = 15
    """Frames that have to be there before a body is given out; ``lag`` + 2 if that is more."""
    temperature: float = 0.0
    """Scale of the noise: 0 gives the network's mean, which is nearest on average; 1 draws samples, by the seed."""
    settle_seconds: float = 10.0
    """After so long the body's shape changes no more; until then it is the mean of what was predicted."""
    floor_height: float = 0.0
    """z of the floor in the world of the poses, meters."""

    def __post_init__(self) -> None:
        _check(0 <= self.lag <= 60, f"lag is {self.lag} frames; it must be 0 to 60 (two seconds).")
        _check(
            1 <= self.num_inference_steps <= 100, f"num_inference_steps is {self.num_inference_steps}; give 1 to 100."
        )
        if self.window is not None:
            self.check_window(self.window)
        _check(self.start_after >= 2, f"start_after is {self.start_after} frames; a step needs 2 of them.")
        _check(self.temperature >= 0, f"temperature is {self.temperature}; give 0 (the mean) or more.")
        _check(self.settle_seconds >= 0, f"settle_seconds is {self.settle_seconds}; give 0 or more.")

    def check_window(self, window: int) -> None:
        """Raises ValueError for a window that is too short."""
        _check(
            window >= max(16, 2 * self.lag),
            f"window is {window} frames; give 16 or more, and twice the lag of {self.lag}.",
        )


class EgoMotionStream:
    """Recovers a body while the head's poses come in: ``stream.push(pose, timestamp)``.

    At every frame the network samples the last seconds anew, in few deterministic steps. What was given out is past:
    its noisy state is put back in place in every step (as in inpainting), and a frame keeps its own noise, so that
    successive windows agree. A frame of the lag is predicted once more with every new one; what is given out is the
    mean of these predictions, faded in and out, and of its nearest neighbors, so that no window shows. Memory does not
    grow. The same seed and poses give the same bodies.

    Args:
        pipeline: whose network is used, on whatever device it is.
        config: see :class:`StreamConfig`.
        seed: of the noise.
        betas: the wearer's shape, if known.
        stature: the wearer's height in meters, in place of ``betas``.

    Raises:
        ValueError: settings that do not fit each other or the pipeline.
    """

    def __init__(
        self,
        pipeline: EgoMotionPipeline,
        config: StreamConfig | None = None,
        *,
        seed: int = 0,
        betas: ArrayLike | None = None,
        stature: float | None = None,
    ) -> None:
        self.config = config or StreamConfig()
        trained = pipeline.config.window
        self._window = trained if self.config.window is None else self.config.window
        self.config.check_window(self._window)
        if self._window > trained:
            raise ValueError(
                f"window is {self._window} frames, but the network was trained on {trained}; set it to that or less."
            )
        if not isinstance(pipeline.scheduler, EgoMotionSDEScheduler):
            raise ValueError(
                f"The pipeline has a {type(pipeline.scheduler).__name__}; a stream needs an EgoMotionSDEScheduler."
            )
        self.denoiser, self.skeleton, self.seed = pipeline.denoiser, pipeline.skeleton, seed
        self.device = self.denoiser.device
        self.clock = FrameClock()
        self._layout = self.denoiser.state_layout
        scheduler = cast(EgoMotionSDEScheduler, EgoMotionSDEScheduler.from_config(pipeline.scheduler.config))
        self._steps = transitions(scheduler, self.config.num_inference_steps, eta=0.0)
        alpha_bars = scheduler.alpha_bars[[step.level for step in self._steps]]
        self._mix = list(zip(alpha_bars.sqrt().tolist(), (1 - alpha_bars).sqrt().tolist(), strict=True))
        self._given = known_betas(self.skeleton, betas, stature)
        self.reset()

    def reset(self) -> None:
        """Forgets everything, the wearer's shape too: the next pose is the first of a new stream."""
        self.clock.forget()
        self._generator = torch.Generator().manual_seed(self.seed)
        self._shape, self._shape_weight = torch.zeros(16), 0.0
        if self._given is not None:
            self._shape = self._given
        self._begin()

    @property
    def delay(self) -> float:
        """Seconds that the body is behind the head, beside the time of a push."""
        return self.config.lag / FPS

    @property
    def betas(self) -> Float[Tensor, "16"]:
        """The shape as it is known by now."""
        return self._shape

    @torch.no_grad()
    def push(self, pose: ArrayLike, timestamp: float, hands: Wrists | None = None) -> BodyPose | None:
        """Takes a pose of the head in; gives the body out at the newest frame that the lag allows.

        Poses that are late, repeated or no poses are left out; after a gap, a jump or a clock set back the stream
        starts anew, with the shape that it knows. The log (``motion_grpo.streaming``) says so.

        Args:
            pose: T_world_cpf in a z-up world, (4, 4) or (7,) wxyz + xyz, meters.
            timestamp: seconds, on any clock.
            hands: T_world_wrist, left and right, likewise, None where not seen; for a network that reads wrists.

        Returns:
            The body, or None: at the start, and where a pose completes no frame of 1/30 s.

        Raises:
            ValueError: a pose of another shape.
        """
        frames, anew = self.clock.push(pose, timestamp, hands)
        if anew:
            self._begin()
        for frame in frames:
            self._append(frame)
        if not frames or self._count < max(self.config.start_after, self.config.lag + 2):
            return None
        return self._body(self._advance())

    # ---- what is kept: the window's frames and one before them

    def _begin(self) -> None:
        self._count = 0
        """Frames since the start."""
        self._frames: list[Frame] = []
        self._first = 0
        """Number of the window's first frame."""
        self._noise = torch.zeros(0, self._layout.dim)
        """Of the window's frames."""
        self._sum, self._weight = torch.zeros(0, self._layout.dim), torch.zeros(0, 1)
        """Of the predictions of each: their mean is its state."""
        self._past = 0
        """Frames of the window that have been given out."""

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        noise = self.config.temperature * torch.randn(1, self._layout.dim, generator=self._generator)
        self._noise = torch.cat([self._noise, noise])
        self._sum, self._weight = (F.pad(kept, (0, 0, 0, 1)) for kept in (self._sum, self._weight))
        self._count += 1
        # Tokens keep their frames: the window moves on by whole ones.
        token = self.denoiser.config.frames_per_token
        if (length := self._count - self._first) > self._window:
            gone = -(-(length - self._window) // token) * token
            self._first += gone
            self._noise, self._sum, self._weight = self._noise[gone:], self._sum[gone:], self._weight[gone:]
            self._past = max(0, self._past - gone)
            del self._frames[: len(self._frames) - (self._count - self._first) - 1]

    # ---- a frame

    def _advance(self) -> int:
        """Samples the window; the place in it of the frame to give out."""
        length = self._count - self._first
        state = self._sample(self._head(length))
        coming = slice(self._past, length)
        weight = _fade(length - 1 - torch.arange(length)[coming, None], self.config.lag)
        self._sum[coming] += weight * state[coming]
        self._weight[coming] += weight
        place = length - 1 - self.config.lag
        self._past = place + 1
        self._learn_shape(state)
        return place

    def _head(self, length: int) -> tuple[HeadPoses, WristPoses | None]:
        frames = self._frames
        R, p = torch.stack([f.R_world_cpf for f in frames]), torch.stack([f.p_world_cpf for f in frames])
        p = p - torch.tensor([0.0, 0.0, self.config.floor_height], dtype=p.dtype)
        head = HeadPoses.from_world(R, p).window(len(frames) - length, len(frames))
        head = HeadPoses(*(x.float().to(self.device) for x in head))
        if not reads_wrists(self.denoiser):
            return head, None
        seen = frames[-length:]
        R, p = torch.stack([f.R_world_wrist for f in seen]), torch.stack([f.p_world_wrist for f in seen])
        p = p - torch.tensor([0.0, 0.0, self.config.floor_height], dtype=p.dtype)
        visible = torch.stack([f.visible for f in seen]).to(self.device)
        return head, WristPoses.from_world(R.float().to(self.device), p.float().to(self.device), visible, head)

    def _sample(self, seen: tuple[HeadPoses, WristPoses | None]) -> Float[Tensor, "frames d_state"]:
        head, wrists = seen
        denoiser = self.denoiser
        measures = None
        if self._given is not None:
            measures = self.skeleton.measures(self._given).to(self.device).expand(len(head.p_world_cpf), -1)
        cond = denoiser.condition(
            head, None if wrists is None else wrists.hand_positions(), wrists=wrists, body_measures=measures
        )[None]
        mask = torch.ones(cond.shape[:2], dtype=torch.bool, device=self.device)
        encoded = None if denoiser.config.noise_in_encoder else denoiser.encode(cond, None, mask)
        noise, past = self._noise[None].to(self.device), self._past
        known = (self._sum[:past] / self._weight[:past])[None].to(self.device)
        shape = self._shape.to(self.device) if self._is_settled else None
        latents = noise
        for (signal, std), step in zip(self._mix, self._steps, strict=True):
            latents = torch.cat([signal * known + std * noise[:, :past], latents[:, past:]], dim=1)
            x0 = predict_clean(denoiser, self._layout, latents, step.level, cond, mask, encoded)
            if shape is not None:
                x0 = torch.cat([shape.expand(*x0.shape[:2], -1), x0[..., len(shape) :]], dim=-1)
            latents = step.mean(x0, latents)
        return latents[0].cpu()

    @property
    def _is_settled(self) -> bool:
        return self._given is not None or self._shape_weight >= self.config.settle_seconds * FPS

    def _learn_shape(self, state: Float[Tensor, "frames d_state"]) -> None:
        if self._is_settled:
            return
        self._shape_weight += 1
        seen = MotionState.unpack(state, self._layout, project=False).betas.mean(0)
        self._shape = torch.lerp(self._shape, seen, 1 / self._shape_weight)

    def _body(self, place: int) -> BodyPose:
        # The neighbors within the lag smooth what is left of the steps from window to window.
        reach = min(self.config.lag, _REACH)
        near = torch.arange(max(0, place - reach), place + reach + 1)
        weight = torch.exp(-0.5 * ((near - place) / _SMOOTHING).square())[:, None]
        mean = (weight * self._sum[near] / self._weight[near]).sum(0, keepdim=True) / weight.sum()
        state = MotionState.unpack(mean, self._layout)
        local, contacts = state.body_rotmats[0], state.contacts[0]
        frame = self._frames[place - (self._count - self._first)]
        R, p = frame.R_world_cpf.float(), frame.p_world_cpf.float()
        body = self.skeleton.place_by_head(self._shape, local, R, p)
        return BodyPose(
            timestamp=frame.timestamp,
            local_rotmats=torch.cat([body.rotmats[:1], local]),
            world_rotmats=body.rotmats,
            joints=body.joints,
            betas=self._shape,
            contacts=contacts.clamp(0, 1),
        )


def _fade(age: Int[Tensor, "frames 1"], lag: int) -> Float[Tensor, "frames 1"]:
    """Weight of the prediction of a frame that is so many frames old: up and down over the lag, older ones more.

    Hann's window times a ramp. On validation clips Hann's alone has the same jitter and 0.3 mm more error at a lag of
    6, the newest prediction alone has 0.5 mm less error and 2.7 times the jitter.
    """
    place = (age + 1) / (lag + 2)
    # A frame that is older when it is first predicted, as at the start, counts fully.
    return torch.where(age > lag, 1.0, torch.sin(torch.pi * place).square() * place)


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
