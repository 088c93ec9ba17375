"""The DPO trainer: whole runs, what the loss is of, resumes, and what is refused."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from motion_grpo import EgoMotionPipeline
from motion_grpo.training import newest_checkpoint
from tests.tiny import moving_clip
from tests.training.dpo.setup import config, trainer
from tests.training.grpo.setup import logged, pipeline, weights

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lora_r", [0, 2])
def test_a_run_learns_to_prefer(tmp_path, lora_r):
    run = trainer(
        tmp_path, max_steps=9, num_train_epochs=3.0, lora_r=lora_r, eval_clips=[moving_clip(30, 9)],
        eval_strategy="steps", eval_steps=9.0, learning_rate=5e-3,
    )  # fmt: skip
    run.train()
    assert logged(run, "loss")[0] == pytest.approx(math.log(2), abs=1e-4)  # the first batch meets equal models
    assert logged(run, "margin")[0] == 0
    assert logged(run, "margin")[-1] > 0
    assert logged(run, "loss")[-1] < math.log(2)
    assert logged(run, "skipped_updates")[-1] == 0
    assert [entry["step"] for entry in run.state.log_history if "eval_mpjpe" in entry] == [0, 9]
    run.save_pipeline(tmp_path / "pipeline")
    EgoMotionPipeline.from_pretrained(tmp_path / "pipeline")


def test_the_reference_stays(tmp_path):
    run = trainer(tmp_path, learning_rate=1e-2)
    before = torch.cat([p.flatten() for p in run.reference.parameters()])
    run.train()
    after = torch.cat([p.flatten() for p in run.reference.parameters()])
    assert torch.equal(before, after)
    assert not torch.equal(weights(run), before)


def test_beta_holds_the_policy_back(tmp_path):
    """Once a pair is told apart its loss is flat, the sooner the larger beta."""
    lost = []
    for beta in (10.0, 1000.0):
        run = trainer(tmp_path, beta=beta, max_steps=9, num_train_epochs=3.0, learning_rate=2e-3)
        run.train()
        lost.append(logged(run, "loss")[-1])
    assert lost[1] < lost[0] < math.log(2)


def test_a_resumed_run_goes_on_as_it_would_have(tmp_path):
    changes = {"save_strategy": "steps", "save_steps": 2.0, "max_steps": 5, "num_train_epochs": 2.0, "ema_decay": 0.9}
    whole = trainer(tmp_path, **changes)
    whole.train()
    for checkpoint in tmp_path.glob("checkpoint-[!2]"):
        checkpoint.rename(tmp_path / f"old-{checkpoint.name}")
    resumed = trainer(tmp_path, **changes)
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)
    assert logged(resumed, "margin") == pytest.approx(logged(whole, "margin"), abs=1e-5)


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="The reference is of another architecture: its d_latent is 32, the policy's"):
        trainer(tmp_path, reference=pipeline(d_latent=32))
    with pytest.raises(ValueError, match=r"The pairs are of .*6d.*, the network has .*matrix"):
        trainer(tmp_path, base=pipeline(rotation_representation="matrix"))
    with pytest.raises(ValueError, match="Pairs have 16 frames, but window is 12"):
        trainer(tmp_path, window=12)
    with pytest.raises(ValueError, match="There are 12 pairs, and an update takes 16; draw more"):
        trainer(tmp_path, per_device_train_batch_size=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0; it must be above 0"),
        ({"num_pairs": 0}, "num_pairs is 0"),
        ({"num_generations": 1}, "num_generations is 1; a pair needs a group of 2"),
        ({"winner": "first"}, "winner is 'first'; choose one of best, truth"),
        ({"noise_weighting": "high"}, "noise_weighting is 'high'; choose one of uniform, egoallo"),
    ],
)
def test_settings_without_a_meaning(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    found = []
    for processes, per_device, accumulation in ((1, 4, 1), (2, 2, 1)):
        result = tmp_path / f"{processes}.pt"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
            str(ROOT / "tests" / "training" / "policy_processes.py"), "dpo", str(tmp_path / f"run{processes}"),
            str(result), str(per_device), str(accumulation),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(result, weights_only=True))
    one, two = found
    assert (one["processes"], two["processes"]) == (1, 2)
    torch.testing.assert_close(two["logged"], one["logged"], rtol=0, atol=1e-5)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=0, atol=1e-5)
