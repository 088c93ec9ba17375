"""The perceptual model's training script, from a pack and a base policy on disk to a model on disk."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from motion_grpo.cli.train import perceptual as script
from transformers import HfArgumentParser

from motion_grpo.models import MotionPerceptualModel
from tests.tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "trainers" / "perceptual.py"
NETWORK = {"d_latent": 16, "num_blocks": 1, "num_heads": 2, "frames_per_token": 4}
TRAINING = {
    "use_cpu": True, "disable_tqdm": True, "report_to": "none", "eval_strategy": "steps", "eval_steps": 2.0,
    "logging_steps": 1.0, "save_steps": 2.0, "learning_rate": 1e-3, "max_steps": 4, "replay": 2,
    "per_device_train_batch_size": 2, "num_negatives": 3, "window": 16,
}  # fmt: skip


@pytest.fixture
def policy(tmp_path) -> str:
    tiny_pipeline(3).save_pretrained(tmp_path / "policy")
    return str(tmp_path / "policy")


def run(
    monkeypatch, pack: Path, output: Path, policies: list[str], training: dict | None = None, *, resume: bool = False,
    overwrite: bool = False, **model,
) -> None:  # fmt: skip
    """The script's ``main`` without the command line, whose parser is loose with types that the tests check."""
    parsed = (
        script.DataArguments([str(pack)], speeds=[1.0, 0.5]),
        script.ModelArguments(policies=policies, **model),
        script.RunArguments(resume, overwrite),
        script.PerceptualConfig(str(output), **TRAINING | (training or {})),
    )
    monkeypatch.setattr(script, "parse", lambda *given: parsed)
    script.main()


def check_output(output: Path, steps: int = 4) -> dict[str, torch.Tensor]:
    """What a run leaves."""
    model = MotionPerceptualModel.from_pretrained(output / "model")
    assert dict(model.config).items() >= NETWORK.items()
    last = MotionPerceptualModel.from_pretrained(output / f"checkpoint-{steps}").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(last[name], value), name
    assert model.joint_std.ne(1).all()
    log = json.loads((output / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, steps + 1))
    evaluations = [entry for entry in log if "eval_accuracy_0" in entry]
    assert [entry["step"] for entry in evaluations] == list(range(2, steps + 1, 2))
    assert all(0 <= entry["eval_accuracy_0"] <= 100 for entry in evaluations)
    recorded = json.loads((output / "run.json").read_text())
    assert recorded["data"]["speeds"] == [1.0, 0.5]
    assert (output / "training_curves.png").stat().st_size > 1000
    return model.state_dict()


@pytest.mark.slow
def test_trains_resumes_and_fine_tunes(pack, policy, tmp_path, monkeypatch):
    output, tuned = tmp_path / "run", tmp_path / "tuned"
    run(monkeypatch, pack, output, [policy], model_config=NETWORK)
    first = check_output(output)
    # As if it had been stopped while it wrote its second checkpoint.
    (output / "checkpoint-4" / "trainer_state.json").write_text('{"best_')
    shutil.rmtree(output / "model")
    run(monkeypatch, pack, output, [policy], model_config=NETWORK, resume=True)
    for name, value in check_output(output).items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=1e-6, msg=name)
    # Going on from a model keeps its statistics.
    run(monkeypatch, pack, tuned, [policy], model_name_or_path=str(output / "model"))
    after = check_output(tuned)
    assert torch.equal(after["joint_mean"], first["joint_mean"])
    assert not torch.equal(after["embed_head.weight"], first["embed_head.weight"])
    torch.testing.assert_close(after["embed_head.weight"], first["embed_head.weight"], rtol=0, atol=0.01)


def test_weaker_negatives_need_no_policy(pack, tmp_path, monkeypatch):
    noise = {"negatives": "gt_noise", "noise_scale": 0.01, "eval_strategy": "no"}
    run(monkeypatch, pack, tmp_path / "run", [], noise, model_config=NETWORK)
    assert (tmp_path / "run" / "model" / "diffusion_pytorch_model.safetensors").is_file()


def test_resuming_a_run_that_has_not_begun_begins_it(pack, policy, tmp_path, monkeypatch):
    run(monkeypatch, pack, tmp_path / "run", [policy], model_config=NETWORK, resume=True)
    check_output(tmp_path / "run")


def test_a_policy_that_is_not_there_is_named(pack, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="no_such_policy"):
        run(monkeypatch, pack, tmp_path / "run", ["no_such_policy"], model_config=NETWORK)


def command(tmp_path: Path, pack: Path, policy: str, *launcher: str, **settings) -> tuple[list[str], dict[str, str]]:
    """The script as a process, and its environment."""
    config = tmp_path / "config.yaml"
    training = {"speeds": [1.0, 0.5], "policies": [policy], "model_config": NETWORK} | TRAINING | settings
    config.write_text(yaml.safe_dump(training))
    arguments = ["--config", str(config), "--dataset_name", str(pack), "--output_dir", str(tmp_path / "run")]
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [sys.executable, *launcher, str(SCRIPT), *arguments], environment


def test_another_run_in_the_folder_is_not_trained_over(pack, policy, tmp_path, monkeypatch):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds another run"):
        run(monkeypatch, pack, tmp_path / "run", [policy], model_config=NETWORK)
    run(monkeypatch, pack, tmp_path / "run", [policy], model_config=NETWORK, overwrite=True)
    check_output(tmp_path / "run")


@pytest.mark.slow
def test_runs_under_accelerate(pack, policy, tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    arguments, environment = command(tmp_path, pack, policy, *launcher)
    done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check_output(tmp_path / "run")


@pytest.mark.slow
def test_survives_being_killed_at_any_moment(pack, policy, tmp_path):
    """kill -9 while it saves at every step, three times, and a run to the end: it never starts over."""
    output = tmp_path / "run"
    settings = {"max_steps": 400, "save_steps": 1, "save_total_limit": 2, "eval_strategy": "no"}
    arguments, environment = command(tmp_path, pack, policy, **settings)

    def steps() -> int:
        return max((int(path.name.split("-")[1]) for path in output.glob("checkpoint-*")), default=0)

    reached = 0
    for _ in range(3):
        process = subprocess.Popen(
            [*arguments, "--resume"], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while steps() < reached + 3 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(random.Random(reached).uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        stderr = process.communicate()[1].decode()
        assert process.returncode == -signal.SIGKILL, stderr[-3000:]
        assert steps() >= reached + 3
        reached = steps()
    last = reached + 5
    done = subprocess.run(
        [*arguments, "--resume", "--max_steps", str(last)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads((output / "training_log.json").read_text())
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    assert sorted(losses) == list(range(1, last + 1))
    assert all(0 < loss < 10 for loss in losses.values())
    assert MotionPerceptualModel.from_pretrained(output / "model").joint_std.ne(1).all()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("perceptual*.yaml")), ids=lambda path: path.name)
def test_presets_name_settings_that_exist(path):
    """And the network they describe can be built."""
    preset = yaml.safe_load(path.read_text())
    parser = HfArgumentParser(
        (script.DataArguments, script.ModelArguments, script.RunArguments, script.PerceptualConfig)
    )
    known = {action.dest for action in parser._actions}
    assert set(preset) <= known
    with torch.device("meta"):
        MotionPerceptualModel(**preset.get("model_config", {}))
