"""ONNX files say what the pipeline says."""

import json
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from motion_grpo.inference.onnx_export import FILES, export_onnx
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import head_trajectory, tiny_pipeline

onnxruntime = pytest.importorskip("onnxruntime")
ONCE = {"rotation_representation": "6d", "frames_per_token": 4, "output_low_pass": 1.5, "include_wrists_cond": True}
EVERY_STEP = {"rotation_representation": "6d", "noise_conditioning": "token", "noise_in_encoder": True}


def recovered(folder: Path, head: HeadPoses, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loop that docs/live.md tells, by onnxruntime."""
    schedule = json.loads((folder / "schedule.json").read_text())
    encoder, step, body = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "step", "body")
    )
    poses = {"R_world_cpf": head.R_world_cpf[None].numpy(), "p_world_cpf": head.p_world_cpf[None].numpy()}
    (code,) = encoder.run(None, poses)
    for one in schedule["steps"]:
        given = {"latents": latents, "level": np.array([one["level"]]), "head": code}
        (clean,) = step.run(None, given)
        latents = np.float32(one["clean_weight"]) * clean + np.float32(one["latent_weight"]) * latents
    joints, _ = body.run(None, {"latents": latents, **poses})
    return latents[0], joints[0]


@pytest.fixture
def as_users_run_it():
    """Switches the shape checker off, which the exporter cannot trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("network", [ONCE, EVERY_STEP], ids=["encoded once", "encoded every step"])
def test_onnxruntime_recovers_what_the_pipeline_does(network: dict, tmp_path: Path) -> None:
    pipe = tiny_pipeline(num_inference_steps=3, window=16, **network)
    pipe.set_progress_bar_config(disable=True)
    assert export_onnx(pipe, tmp_path) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    trajectory = head_trajectory(16)
    start = torch.randn(1, 16, pipe.denoiser.state_layout.dim)
    output = pipe(trajectory, latents=start, eta=0.0)
    head = HeadPoses.from_world(trajectory.R_world_cpf, trajectory.p_world_cpf)
    latents, joints = recovered(tmp_path, head, start.numpy())
    assert_allclose(latents, output.latents[0], atol=1e-4)
    assert_allclose(joints, output.motions[0].joints[:, :22], atol=1e-4)


def test_a_window_longer_than_the_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames is 17; a window has 2 to 16"):
        export_onnx(tiny_pipeline(window=16), tmp_path, frames=17)


def test_rotations_as_matrices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rotation_representation is 'matrix'"):
        export_onnx(tiny_pipeline(window=16), tmp_path)
