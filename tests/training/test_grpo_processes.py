"""GRPO on several processes, and the private names of TRL, transformers and accelerate that the trainer relies on."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from accelerate.state import GradientState
from transformers import Trainer
from trl import GRPOTrainer
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.utils import RepeatSampler

from tests.training.grpo_setup import trainer

ROOT = Path(__file__).parents[2]


def launch(tmp_path: Path, processes: int, per_device: int, accumulation: int) -> dict:
    result = tmp_path / f"{processes}.pt"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
        str(Path(__file__).with_name("grpo_processes.py")), str(tmp_path / f"run{processes}"), str(result),
        str(per_device), str(accumulation),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result, weights_only=True)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """Three conditions of four samples: the second group is divided between the processes, and each of them takes two
    passes where the one process takes one."""
    one, two = launch(tmp_path, 1, 12, 1), launch(tmp_path, 2, 3, 2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["advantages"].shape == (3, 12, 16)
    torch.testing.assert_close(two["rewards"], one["rewards"], rtol=0, atol=1e-5)
    torch.testing.assert_close(two["advantages"], one["advantages"], rtol=0, atol=1e-3)
    torch.testing.assert_close(two["diversity"], one["diversity"], rtol=1e-4, atol=0)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=0, atol=1e-5)


RELIED_ON = [
    (_BaseTrainer, "_send_telemetry"),
    (_BaseTrainer, "create_model_card"),
    (GRPOTrainer, "_set_signature_columns_if_needed"),
    (GRPOTrainer, "_get_train_sampler"),
    (GRPOTrainer, "_generate_and_score_completions"),
    (GRPOTrainer, "_prepare_inputs"),
    (GRPOTrainer, "_log_metric"),
    (GRPOTrainer, "_save_checkpoint"),
    (GRPOTrainer, "training_step"),
    (Trainer, "_save"),
    (Trainer, "_save_checkpoint"),
    (Trainer, "_load_from_checkpoint"),
    (Trainer, "_load_best_model"),
    (Trainer, "_get_dataloader"),
    (GradientState, "_set_sync_gradients"),
]


@pytest.mark.parametrize(("owner", "name"), RELIED_ON, ids=[f"{owner.__name__}.{name}" for owner, name in RELIED_ON])
def test_what_is_overridden_is_still_there(owner, name):
    assert name in vars(owner), f"{owner.__module__}.{owner.__name__}.{name} moved: MotionGRPOTrainer overrides it."


def test_the_sampler_still_repeats():
    sampler = RepeatSampler([0] * 4, mini_repeat_count=2, batch_size=2, repeat_count=3, shuffle=False, seed=0)
    assert list(sampler)[:16] == [0, 0, 1, 1] * 3 + [2, 2, 3, 3]
    assert {"generator", "seed"} <= vars(RepeatSampler([0] * 4, mini_repeat_count=2, seed=0)).keys()


def read_attributes(function) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and ast.unparse(node.value) == "self"
    }


@pytest.mark.parametrize(
    "method", [GRPOTrainer.get_train_dataloader, GRPOTrainer.log, GRPOTrainer._load_optimizer_and_scheduler]
)
def test_what_inherited_methods_read_is_set(tmp_path, method):
    """The constructor of GRPOTrainer never runs; these methods of it do."""
    run = trainer(tmp_path)
    # Only with log_completions, which is off.
    logging_text = {"_logs", "num_completions_to_print", "log_unique_prompts"}
    entropy_control = {"entropy_coef", "_last_world_entropy"}
    missing = {name for name in read_attributes(method) - logging_text - entropy_control if not hasattr(run, name)}
    assert not missing, f"{method.__qualname__} reads {missing} now; MotionGRPOTrainer's constructor must set it."


def test_the_step_counts_that_the_base_sets():
    source = inspect.getsource(Trainer._run_epoch)
    for name in ("current_gradient_accumulation_steps", "_set_sync_gradients", "no_sync", "training_step"):
        assert name in source, f"transformers' training loop has no {name} any more; training_step relies on it."
