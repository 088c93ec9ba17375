"""The authors' setting: EgoAllo's network and sampler, frozen layers, several updates a rollout."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.inference.rollout import transition
from motion_grpo.training.grpo.experience import path
from tests.tiny import GOLDEN
from tests.training.grpo.rollouts import experience
from tests.training.grpo.setup import config, logged, pipeline, trainer

ROOT = Path(__file__).parents[3]
PRESET = yaml.safe_load((ROOT / "configs" / "grpo_authors.yaml").read_text())
OWN = ("timestep_spacing", "eta", "variance", "direction_offset", "project_rotations", "trainable", "rewards",
       "reward_omegas", "aggregation", "group_std_floor", "advantage_clip", "epsilon", "log_prob_reduction",
       "credit", "exploration", "weight_decay", "head_noise", "max_grad_norm")  # fmt: skip
AUTHORS = {name: PRESET[name] for name in OWN}


def test_the_preset_samples_as_egoallo_does(tmp_path):
    """Levels, weights and std of all 30 steps; the last is deterministic and not trained."""
    scheduler = EgoMotionSDEScheduler(timestep_spacing=PRESET["timestep_spacing"])
    args = config(tmp_path, **AUTHORS, num_sampling_steps=PRESET["num_sampling_steps"])
    steps, explored, trained = path(args, scheduler, 0)
    theirs = EgoMotionSDEScheduler.egoallo()
    theirs.set_timesteps(30)
    expected = [transition(theirs, *levels, 0.8) for levels in pairwise(theirs.levels.tolist())]
    assert steps == expected
    assert [step.level for step in steps[:4]] == [1000, 841, 784, 729]
    assert explored == trained == list(range(29))
    assert steps[1].std == pytest.approx(0.088, abs=1e-3)


@pytest.mark.parametrize("name", ["egoallo_film_rope_nohands", "egoallo_token_rope"])
def test_from_egoallos_weights_to_updates(tmp_path, name):
    """The first ratio is 1, later ones are not, and the clip range binds for some and not for most."""
    base = EgoMotionPipeline.from_egoallo(GOLDEN / name)
    frozen = {n: p.clone() for n, p in base.denoiser.named_parameters() if n.startswith("latent_from_cond.")}
    run = trainer(
        tmp_path, base=base, **AUTHORS | {"epsilon": 1e-5}, num_sampling_steps=30, per_device_train_batch_size=4,
        gradient_accumulation_steps=1, steps_per_generation=4, learning_rate=2e-5, max_steps=4, seed=1,
    )  # fmt: skip
    run.train()
    assert logged(run, "ratio/first_error") == [pytest.approx(0, abs=1e-6)]
    spread, clipped = logged(run, "ratio/std"), logged(run, "clip_fraction")
    assert spread[0] < 1e-6
    assert clipped[0] == 0
    assert min(spread[1:]) > 1e-6
    assert 0.01 < sum(clipped[1:]) / 3 < 0.6
    parameters = dict(run.denoiser.named_parameters())
    assert all(torch.equal(parameters[n], value) for n, value in frozen.items())
    assert len(frozen) == 2
    moved = [n for n, value in EgoMotionPipeline.from_egoallo(GOLDEN / name).denoiser.named_parameters()
             if not torch.equal(value, parameters[n])]  # fmt: skip
    assert len(moved) > len(parameters) / 2


def test_a_rollout_is_drawn_and_judged_a_pass_at_a_time(tmp_path):
    """Whatever the size of a pass, samples and advantages are the same, and no more are in the network at once."""
    found = []
    for size in (8, 2):
        run = trainer(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        calls: list[int] = []
        run.policy.register_forward_pre_hook(lambda _, inputs, calls=calls: calls.append(len(inputs[0])))
        part = experience(run)
        assert max(calls) <= size
        found.append(part)
    torch.testing.assert_close(found[1].latents[-1], found[0].latents[-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1].advantages, found[0].advantages, rtol=1e-3, atol=1e-3)


def test_rotations_may_stay_as_the_network_puts_them_out(tmp_path):
    """In rollout and update alike, so the first ratio is 1; rewards see proper ones."""
    run = trainer(tmp_path, base=pipeline(rotation_representation="matrix"), project_rotations=False)
    part = experience(run)
    rotations = part.latents[-1][..., 16 : 16 + 189].unflatten(-1, (21, 3, 3))
    off = (rotations @ rotations.mT - torch.eye(3)).abs().amax()
    assert off > 1e-2
    run._step = 0
    run.train()
    assert max(logged(run, "ratio/first_error")) < 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variance": "two_levels"}, "variance is 'two_levels'; choose one of jump, single_level"),
        ({"direction_offset": -0.1}, "direction_offset is -0.1; it must be 0 or more"),
        ({"lora_r": 2, "trainable": ["*", "!decoders.*"]}, "with lora_r 2 the adapter alone is trained"),
    ],
)
def test_settings_without_a_meaning(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trainable has '!head_layer\.\*', which matches no weight"):
        trainer(tmp_path, trainable=["*", "!head_layer.*"])


@pytest.mark.slow
def test_their_batch_fits_into_8_gb(tmp_path):
    """A rollout of 1,024 samples and the first of its 16 updates, by the shipped paper_base, on one core."""
    program = Path(__file__).with_name("authors_memory.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) < 8
