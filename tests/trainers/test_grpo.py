"""The GRPO script, from a pack and a pipeline on disk to a pipeline on disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from motion_grpo.cli.train import grpo as script
from transformers import HfArgumentParser

from motion_grpo import EgoMotionPipeline
from motion_grpo.rewards import RewardInputs
from motion_grpo.viz.curves import logged_curves
from tests.training.grpo.setup import SETTINGS, pipeline

ROOT = Path(__file__).parents[2]
RUN = SETTINGS | {
    "save_strategy": "steps", "save_steps": 1.0, "eval_strategy": "steps", "eval_steps": 2.0, "max_steps": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def base(tmp_path) -> Path:
    pipeline().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def run(monkeypatch, pack: Path, *, resume: bool = False, overwrite: bool = False, **settings) -> Path:
    """The script's ``main`` without the command line, whose parser is loose with types that the tests check."""
    output = pack.parent / "run"
    parsed = (
        script.DataArguments([str(pack)]),
        script.ModelArguments(str(pack.parent / "base")),
        script.RunArguments(resume, overwrite),
        script.MotionGRPOConfig(str(output), **RUN | settings),
    )
    monkeypatch.setattr(script, "parse", lambda *given: parsed)
    script.main()
    return output


def terminated(inputs: RewardInputs) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGTERM)
    return inputs.contacts.mean((1, 2))


def test_trains_stops_and_resumes(pack, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, pack, rewards=[f"{__name__}:terminated"])
    assert stopped.value.code == 143
    output = pack.parent / "run"
    assert not (output / "pipeline").exists()
    assert not (output / "README.md").exists()
    assert [folder.name for folder in output.glob("checkpoint-*")] == ["checkpoint-1"]
    run(monkeypatch, pack, resume=True)
    log = json.loads((output / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2]
    # The base, and what was trained; the second session does not measure the base again.
    assert [entry["step"] for entry in log if "eval_mpjpe" in entry] == [0, 2]
    recorded = json.loads((output / "run.json").read_text())
    assert recorded["settings"]["num_sampling_steps"] == 3
    assert recorded["data"]["dataset_name"] == [str(pack)]
    assert "Post-trained from **base**" in (output / "README.md").read_text()
    assert (output / "training_curves.png").stat().st_size > 1000
    base, trained = (EgoMotionPipeline.from_pretrained(path) for path in (pack.parent / "base", output / "pipeline"))
    assert trained.scheduler.config.timestep_spacing == "trailing"
    pairs = zip(base.denoiser.parameters(), trained.denoiser.parameters(), strict=True)
    moved = [not torch.equal(a, b) for a, b in pairs]
    assert sum(moved) > len(moved) / 2


@pytest.mark.slow
def test_resumes_from_the_checkpoint_that_is_named(pack, monkeypatch):
    output = run(monkeypatch, pack)
    state = json.loads((output / "checkpoint-1" / "trainer_state.json").read_text())
    (output / "checkpoint-1" / "trainer_state.json").write_text(json.dumps(state | {"log_history": []}))
    run(monkeypatch, pack, resume_from_checkpoint=str(output / "checkpoint-1"))
    log = json.loads((output / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "reward" in entry] == [2]


@pytest.mark.slow
def test_another_run_in_the_folder_is_not_trained_over(pack, monkeypatch):
    output = run(monkeypatch, pack)
    before = (output / "training_log.json").read_bytes()
    with pytest.raises(ValueError, match="holds another run"):
        run(monkeypatch, pack, max_steps=1)
    assert (output / "training_log.json").read_bytes() == before
    run(monkeypatch, pack, overwrite=True, max_steps=1)
    assert [folder.name for folder in output.glob("checkpoint-*")] == ["checkpoint-1"]


def test_plot_run_shows_the_base(pack, monkeypatch):
    curves = logged_curves(json.loads((run(monkeypatch, pack) / "training_log.json").read_text()))
    assert curves["eval_mpjpe"][0].tolist() == [0, 2]


@pytest.mark.slow
def test_runs_under_accelerate(pack, tmp_path):
    output, preset = tmp_path / "run", tmp_path / "config.yaml"
    preset.write_text(yaml.safe_dump(RUN | {"reward_omegas": {"rotation": 2.0}, "advantage_clip": None}))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1",
        str(ROOT / "trainers" / "grpo.py"), "--config", str(preset), "--dataset_name", str(pack), "--output_dir",
        str(output), "--model_name_or_path", str(tmp_path / "base"), "--credit", "frame",
    ]  # fmt: skip
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    settings = json.loads((output / "run.json").read_text())["settings"]
    assert (settings["credit"], settings["reward_omegas"]) == ("frame", {"rotation": 2.0})
    assert settings["advantage_clip"] is None
    assert (output / "pipeline" / "model_index.json").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("grpo*.yaml")), ids=lambda path: path.name)
def test_presets_name_settings_that_exist(path, tmp_path, monkeypatch):
    """And the settings go with each other."""
    preset = yaml.safe_load(path.read_text())
    parser = HfArgumentParser(
        (script.DataArguments, script.ModelArguments, script.RunArguments, script.MotionGRPOConfig)
    )
    assert set(preset) <= {action.dest for action in parser._actions}
    floats = {name: float(preset[name]) for name in ("logging_steps", "eval_steps", "save_steps", "warmup_steps")}
    own = {name: value for name, value in preset.items() if name in script.MotionGRPOConfig.__dataclass_fields__}
    settings = script.MotionGRPOConfig(str(tmp_path), **own | floats | {"use_cpu": True})
    assert settings.conditions_per_generation >= 8


def test_presets_of_accelerate_are_read(tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    for name, kind in (("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("deepspeed", "DEEPSPEED")):
        preset = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
        assert preset.distributed_type == kind
        assert preset.num_processes == 2
