"""What the GRPO trainer refuses, and what it survives."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from motion_grpo.rewards import RewardInputs
from motion_grpo.training import MotionGRPOTrainer, newest_checkpoint
from motion_grpo.training.conditions import NumberedConditions
from tests.training.grpo.setup import config, logged, pipeline, trainer, weights, windows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1; a group needs 2 samples or more"),
        ({"num_generations": 3}, r"generation_batch_size \(8\) must be divisible by num_generations \(3\)"),
        ({"num_sampling_steps": 1}, "num_sampling_steps is 1; the last step is deterministic"),
        ({"eta": 0.0}, "eta is 0.0; it must be above 0 .*no density"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"credit": "token"}, "credit is 'token'; choose one of sequence, frame"),
        ({"exploration": "pink"}, "exploration is 'pink'"),
        ({"aggregation": "median"}, "aggregation is 'median'"),
        ({"log_prob_reduction": "max"}, "log_prob_reduction is 'max'"),
        ({"step_weights": "late"}, "step_weights is 'late'"),
        ({"exploration_components": 17}, "exploration_components is 17; a window has 16"),
        ({"sde_window_size": 3}, "sde_window_size is 3 from step 0 on, but of 3 steps only the first 2"),
        ({"sde_window_size": 2, "sde_window_start": 1}, "sde_window_size is 2 from step 1 on"),
        ({"sde_window_size": 0}, "sde_window_size is 0 and so is last_step_std"),
        ({"sde_window_size": -1}, "sde_window_size is -1 from step 0 on"),
        ({"sde_window_start": 1}, "sde_window_start is 1, but sde_window_size is not set"),
        ({"timestep_fraction": 0.0}, "timestep_fraction is 0.0"),
        ({"group_std_floor": 0.0}, "group_std_floor is 0.0"),
        ({"advantage_clip": 0.0}, "advantage_clip is 0.0"),
        ({"head_noise": -0.1}, "head_noise is -0.1"),
        ({"last_step_std": -0.1}, "last_step_std is -0.1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"lora_r": -1}, "lora_r is -1"),
        ({"window": 3}, "window is 3 frames"),
        ({"head_noise_frequency": 0.0}, "head_noise_frequency is 0.0"),
        ({"head_noise_octaves": 0}, "head_noise_octaves is 0"),
        ({"reward_smooth_frames": 0}, "reward_smooth_frames is 0"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon_high": -1.0}, "epsilon_high is -1.0"),
        ({"steps_per_generation": 1, "gradient_accumulation_steps": 2}, "an update would mix two rollouts"),
    ],
)
def test_settings_without_a_meaning(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def build(tmp_path: Path, *, base=None, data=None, **settings) -> MotionGRPOTrainer:
    return MotionGRPOTrainer(base or pipeline(), config(tmp_path, **settings), data or windows())


def test_data_that_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="without a seed, so members of a group could have different ones"):
        build(tmp_path, data=windows(seed=None))
    with pytest.raises(
        ValueError, match=r"reward_weights is \[1.0\]; give one number each to the rewards rotation, pos"
    ):
        build(tmp_path, reward_weights=[1.0])
    with pytest.raises(ValueError, match="windows of 16 frames, but window is 12"):
        build(tmp_path, window=12)
    with pytest.raises(ValueError, match="has 2 windows with a recorded body, and a rollout needs 4 conditions"):
        build(tmp_path, data=windows(1), per_device_train_batch_size=16)
    with pytest.raises(ValueError, match="is a NumberedConditions; post-training returns to its conditions by number"):
        build(tmp_path, data=NumberedConditions(windows()))


def test_a_pipeline_that_does_not_fit(tmp_path):
    base = pipeline()
    base.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="has a DDIMScheduler; post-training needs the steps"):
        build(tmp_path, base=base)
    with pytest.raises(ValueError, match="window is 32 frames, but the pipeline's network was trained on 16"):
        build(tmp_path, window=32, data=windows(length=32))


def test_groups_are_not_divided_among_the_gpus_of_a_process(tmp_path):
    args = config(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match="One process has 2 GPUs, which would divide its conditions among them"):
        MotionGRPOTrainer(pipeline(), args, windows())


def test_a_visual_reward_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="'visual' needs perceptual_model"):
        build(tmp_path, rewards=["visual"])


def test_a_reward_that_is_none_is_named(tmp_path):
    broken = {"broken": lambda inputs: torch.full((8,), float("nan"))}
    with pytest.raises(ValueError, match="'broken' is NaN or infinite for sample 0 of 8"):
        trainer(tmp_path, rewards_by_name=broken).train()
    short = {"short": lambda inputs: torch.zeros(7)}
    with pytest.raises(ValueError, match=r"'short' returned the shape \(7,\); it must be \(8,\)"):
        trainer(tmp_path, rewards_by_name=short).train()


SAVING = {"save_strategy": "steps", "save_steps": 1.0, "max_steps": 3}


def test_a_checkpoint_of_another_architecture(tmp_path):
    trainer(tmp_path, **SAVING | {"max_steps": 1}).train()
    wider = trainer(tmp_path, base=pipeline(d_latent=32), **SAVING)
    with pytest.raises(ValueError, match="another architecture: its d_latent is 16, the policy's is 32"):
        wider.train(resume_from_checkpoint=newest_checkpoint(tmp_path))


def test_an_adapter_of_another_rank(tmp_path):
    trainer(tmp_path, lora_r=2, **SAVING | {"max_steps": 1}).train()
    message = r"lora_weights\.safetensors is the adapter of another network or rank.*lora_r"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, lora_r=4, **SAVING).train(resume_from_checkpoint=newest_checkpoint(tmp_path))


@pytest.mark.parametrize("size", [100, 60_000], ids=["weights", "optimizer"])
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path, size):
    """No file may be longer than so many bytes, from the second checkpoint on: a full disk, without being root."""
    run = trainer(tmp_path, **SAVING)
    before, save_model = resource.getrlimit(resource.RLIMIT_FSIZE), run.save_model

    def no_room(*args, **options) -> None:
        if run.state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        save_model(*args, **options)

    run.save_model = no_room
    try:
        with pytest.raises(OSError) as failure:
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "checkpoint-2 could not be written" in str(failure.value)
    assert "the checkpoints before it are whole" in str(failure.value)
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    resumed = trainer(tmp_path, **SAVING)
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    assert resumed.state.global_step == 3


def terminating(inputs: RewardInputs) -> torch.Tensor:
    """A reward whose first call is interrupted by whoever runs the machine."""
    if not terminating.told:
        terminating.told = True
        os.kill(os.getpid(), signal.SIGTERM)
    return inputs.contacts.mean((1, 2))


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_ends(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 100.0, "max_steps": 4, "rewards_by_name": {"r": terminating}}
    terminating.told = True
    whole = trainer(tmp_path / "whole", **settings)
    whole.train()
    terminating.told = False
    handler = signal.getsignal(signal.SIGTERM)
    run = trainer(tmp_path, **settings)
    run.train()
    assert run.terminated.requested
    assert run.state.global_step == 1
    assert signal.getsignal(signal.SIGTERM) is handler
    assert newest_checkpoint(tmp_path).endswith("checkpoint-1")
    resumed = trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    assert not resumed.terminated.requested
    assert len(logged(resumed, "reward")) == 4
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)
