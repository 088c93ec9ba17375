"""A pipeline as ONNX: what encodes the head, one denoising step, what poses the body, and the schedule as JSON."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from motion_grpo.body import JOINT_NAMES, NUM_BODY_AND_ROOT, Skeleton
from motion_grpo.extras import extra
from motion_grpo.files import write_text
from motion_grpo.inference.pipeline import EgoMotionPipeline
from motion_grpo.inference.rollout import transitions
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import FPS, MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.trajectory.head_poses import HeadPoses

FILES = ("encoder.onnx", "step.onnx", "body.onnx", "schedule.json")


class Encoder(nn.Module):
    """Head poses to what every step reads: their features, encoded where the encoder does not see the noise."""

    def __init__(self, denoiser: EgoMotionDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, R_world_cpf: Float[Tensor, "1 frames 3 3"], p_world_cpf: Float[Tensor, "1 frames 3"]
    ) -> Float[Tensor, "1 rows d"]:
        """Poses above a floor at z = 0, at 30 fps; wrists and the wearer's size are not known."""
        cond = self.denoiser.condition(HeadPoses.from_world(R_world_cpf, p_world_cpf))
        return cond if self.denoiser.config.noise_in_encoder else self.denoiser.encode(cond)


class Step(nn.Module):
    """The clean state that a noisy one should head for, its rotations projected."""

    def __init__(self, denoiser: EgoMotionDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, latents: Float[Tensor, "1 frames d_state"], level: Int64[Tensor, "1"], head: Float[Tensor, "1 rows d"]
    ) -> Float[Tensor, "1 frames d_state"]:
        """``level`` is the noise level of ``latents``, ``head`` what :class:`Encoder` gave."""
        denoiser = self.denoiser
        encoded = denoiser.encode(head, level) if denoiser.config.noise_in_encoder else head
        # The network asks for the features only to encode them.
        x0 = denoiser(latents, level, head, encoded=encoded, return_dict=False)[0]
        return MotionState.unpack(x0, denoiser.state_layout).pack(denoiser.state_layout)


class Body(nn.Module):
    """A clean state under the head's poses."""

    def __init__(self, denoiser: EgoMotionDenoiser, skeleton: Skeleton) -> None:
        super().__init__()
        self.layout, self.skeleton = denoiser.state_layout, skeleton

    def forward(
        self,
        latents: Float[Tensor, "1 frames d_state"],
        R_world_cpf: Float[Tensor, "1 frames 3 3"],
        p_world_cpf: Float[Tensor, "1 frames 3"],
    ) -> tuple[Float[Tensor, "1 frames 22 3"], Float[Tensor, "1 frames 22 3 3"]]:
        """World positions of the joints 0 to 21, meters, and R_world_joint; one shape for all frames."""
        state = MotionState.unpack(latents, self.layout, project=False)
        betas = state.betas.mean(-2, keepdim=True)
        body = self.skeleton.place_by_head(betas, state.body_rotmats, R_world_cpf, p_world_cpf)
        return body.joints, body.rotmats


def export_onnx(
    pipeline: EgoMotionPipeline,
    folder: str | Path,
    *,
    num_inference_steps: int | None = None,
    frames: int | None = None,
) -> Path:
    """Writes :data:`FILES` into a folder, for windows of a fixed number of frames and deterministic sampling.

    A window is recovered so: ``head = encoder(R, p)``; from standard normal ``latents``, for every step of the schedule
    ``latents = clean_weight * step(latents, level, head) + latent_weight * latents``; ``joints = body(latents, R, p)``.

    Args:
        pipeline: in float32 on the CPU.
        folder: made if it is not there.
        num_inference_steps: the pipeline's own when None.
        frames: of a window; the pipeline's own when None.

    Raises:
        ValueError: a scheduler of another kind, a window longer than the network's, or rotations as matrices.
        ModuleNotFoundError: the extra ``onnx`` is not installed.
    """
    with extra("onnx"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    window = int(pipeline.config.window)
    frames = window if frames is None else frames
    if not 2 <= frames <= window:
        raise ValueError(f"frames is {frames}; a window has 2 to {window}, as the network was trained.")
    if not isinstance(pipeline.scheduler, EgoMotionSDEScheduler):
        raise ValueError(
            f"The pipeline has a {type(pipeline.scheduler).__name__}; set pipeline.scheduler to an "
            "EgoMotionSDEScheduler, whose steps the schedule lists."
        )
    if pipeline.denoiser.config.rotation_representation != "6d":
        raise ValueError(
            "The network's rotation_representation is 'matrix', whose projection needs an arc cosine in float64 that "
            "onnxruntime does not have; export a network of '6d', such as those that ship."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    denoiser = pipeline.denoiser.eval()
    steps = pipeline.config.num_inference_steps if num_inference_steps is None else num_inference_steps
    scheduler = cast(EgoMotionSDEScheduler, EgoMotionSDEScheduler.from_config(pipeline.scheduler.config))
    R, p = torch.eye(3).repeat(1, frames, 1, 1), torch.zeros(1, frames, 3)
    latents, level = torch.zeros(1, frames, denoiser.state_layout.dim), torch.tensor([1])
    encoder, poses = Encoder(denoiser).eval(), ["R_world_cpf", "p_world_cpf"]
    with torch.no_grad():
        head = encoder(R, p)
    _write(encoder, (R, p), folder / "encoder.onnx", poses, ["head"])
    _write(Step(denoiser), (latents, level, head), folder / "step.onnx", ["latents", "level", "head"], ["clean"])
    body = Body(denoiser, pipeline.skeleton)
    _write(body, (latents, R, p), folder / "body.onnx", ["latents", *poses], ["joints", "R_world_joint"])
    schedule = {
        "frames": frames,
        "fps": FPS,
        "state": denoiser.state_layout.sizes,
        "joints": JOINT_NAMES[:NUM_BODY_AND_ROOT],
        "steps": [
            {"level": step.level, "clean_weight": step.clean_weight, "latent_weight": step.latent_weight}
            for step in transitions(scheduler, steps, eta=0.0)
        ],
    }
    write_text(folder / "schedule.json", json.dumps(schedule, indent=1) + "\n")
    return folder


def _write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, given: list[str], found: list[str]) -> None:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), inputs, dynamo=True, input_names=given, output_names=found, verbose=False, optimize=True
        )
        assert program is not None
        program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns at length of what does not concern its user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
