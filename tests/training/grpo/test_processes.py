"""GRPO on several processes, and the private names of TRL, transformers and accelerate that the trainer relies on."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from motion_grpo.training.grpo.trl_adapter import RELIED_ON, check_relied_on
from tests.training.grpo.setup import trainer

ROOT = Path(__file__).parents[3]


def launch(tmp_path: Path, processes: int, per_device: int, accumulation: int) -> dict:
    result = tmp_path / f"{processes}.pt"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
        str(Path(__file__).with_name("processes.py")), str(tmp_path / f"run{processes}"), str(result),
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


@pytest.mark.parametrize(
    ("place", "name"), [(place, name) for place, names in RELIED_ON.items() for name in names], ids=":".join
)
def test_what_is_relied_on_is_named_when_it_is_gone(place, name, monkeypatch):
    check_relied_on()
    owner = resolve_name(place)
    monkeypatch.delattr(owner, name)
    with pytest.raises(ImportError, match=rf"has no {owner.__name__}\.{name}, which .*: pip install \"trl==1\.16"):
        check_relied_on()


def test_a_class_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(RELIED_ON, "trl.trainer.gone:Trainer", ("train",))
    with pytest.raises(ImportError, match=r"^trl 1\.\S+ has no Trainer\.train, which"):
        check_relied_on()


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
