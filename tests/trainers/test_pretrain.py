"""The pre-training script, from a pack on disk to a pipeline on disk."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from motion_grpo.cli.train import pretrain as script
from transformers import HfArgumentParser

from motion_grpo import EgoMotionPipeline, Skeleton
from motion_grpo.data import Clip, clip_to_row
from motion_grpo.data.schema import rows_to_table
from motion_grpo.models import EgoMotionDenoiser
from tests.body.smplh import write_smplh
from tests.tiny import head_trajectory, moving_motion

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "trainers" / "pretrain.py"
NETWORK = {
    "d_latent": 16, "d_feedforward": 16, "d_noise_emb": 8, "num_heads": 2, "num_encoder_layers": 1,
    "num_decoder_layers": 1, "noise_conditioning": "film", "noise_in_encoder": False, "include_hands": False,
    "rotation_representation": "6d", "normalize_cond": True,
}  # fmt: skip

TRAINING = {
    "use_cpu": True, "disable_tqdm": True, "report_to": "none", "eval_strategy": "steps", "eval_steps": 2.0,
    "logging_steps": 1.0, "save_steps": 2.0, "warmup_steps": 0.0, "learning_rate": 1e-3, "max_steps": 4,
    "per_device_train_batch_size": 2, "window": 16,
}  # fmt: skip


def run(monkeypatch, pack: Path, output: Path, *, resume: bool = False, overwrite: bool = False, **model) -> None:
    """The script's ``main`` without the command line, whose parser is loose with types that the tests check."""
    settings = {"num_inference_steps": 5, "eta": 0.25, "timestep_spacing": "trailing"}
    parsed = (
        script.DataArguments([str(pack)], speeds=[1.0, 0.5]),
        script.ModelArguments(**settings | model),
        script.RunArguments(resume, overwrite),
        script.DenoisingConfig(str(output), **TRAINING),
    )
    monkeypatch.setattr(script, "parse", lambda *given: parsed)
    script.main()


def check_output(output: Path) -> EgoMotionPipeline:
    """What a run of four steps leaves."""
    pipe = EgoMotionPipeline.from_pretrained(output / "pipeline")
    assert (pipe.config.num_inference_steps, pipe.config.window, pipe.config.overlap) == (5, 16, 6)
    assert (pipe.scheduler.config.eta, pipe.scheduler.config.timestep_spacing) == (0.25, "trailing")
    # The averaged weights are what is shipped.
    averaged = EgoMotionDenoiser.from_pretrained(output / "checkpoint-4" / "ema")
    for name, value in averaged.state_dict().items():
        assert torch.equal(pipe.denoiser.state_dict()[name], value), name
    assert pipe.denoiser.cond_mean.ne(0).any()
    pipe.set_progress_bar_config(disable=True)
    assert pipe(head_trajectory(40)).motion.joints.isfinite().all()
    log = json.loads((output / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    assert [entry["step"] for entry in log if "eval_mpjpe" in entry] == [2, 4]
    recorded = json.loads((output / "run.json").read_text())
    assert recorded["data"]["speeds"] == [1.0, 0.5]
    assert recorded["model"]["model_config"] == NETWORK
    assert (output / "training_curves.png").stat().st_size > 1000
    assert "4 steps of 2 windows of 16 frames" in (output / "README.md").read_text()
    return pipe


def test_trains_resumes_and_fine_tunes(pack, tmp_path, monkeypatch):
    output, tuned = tmp_path / "run", tmp_path / "tuned"
    run(monkeypatch, pack, output, model_config=NETWORK)
    first = check_output(output).denoiser.state_dict()
    # As if it had been stopped after its first checkpoint: optimizer, windows and noise go on as they would have.
    shutil.rmtree(output / "checkpoint-4")
    run(monkeypatch, pack, output, model_config=NETWORK, resume=True)
    for name, value in check_output(output).denoiser.state_dict().items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=1e-6, msg=name)
    # Fine-tuning starts at the pipeline's weights and keeps its statistics.
    run(monkeypatch, pack, tuned, model_name_or_path=str(output / "pipeline"))
    after = EgoMotionPipeline.from_pretrained(tuned / "pipeline").denoiser.state_dict()
    for name, value in after.items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=0.01, msg=name)
    assert torch.equal(after["cond_mean"], first["cond_mean"])
    assert not torch.equal(after["latent_from_cond.weight"], first["latent_from_cond.weight"])


def test_another_run_in_the_folder_is_not_trained_over(pack, tmp_path, monkeypatch):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds another run"):
        run(monkeypatch, pack, tmp_path / "run", model_config=NETWORK)
    run(monkeypatch, pack, tmp_path / "run", model_config=NETWORK, overwrite=True)
    check_output(tmp_path / "run")


@pytest.mark.slow
def test_runs_under_accelerate(pack, tmp_path):
    output, config = tmp_path / "run", tmp_path / "config.yaml"
    settings = {"speeds": [1.0, 0.5], "num_inference_steps": 5, "eta": 0.25, "timestep_spacing": "trailing"}
    config.write_text(yaml.safe_dump(settings | TRAINING | {"model_config": NETWORK}))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", str(SCRIPT),
        "--config", str(config), "--dataset_name", str(pack), "--output_dir", str(output),
    ]  # fmt: skip
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check_output(output)


def test_a_missing_pack_is_named(tmp_path, monkeypatch):
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
        run(monkeypatch, tmp_path / "nowhere", tmp_path / "run", model_config=NETWORK)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("pretrain*.yaml")), ids=lambda path: path.name)
def test_presets_name_settings_that_exist(path):
    """And the network they describe can be built."""
    preset = yaml.safe_load(path.read_text())
    parser = HfArgumentParser(
        (script.DataArguments, script.ModelArguments, script.RunArguments, script.DenoisingConfig)
    )
    known = {action.dest for action in parser._actions}
    assert set(preset) <= known
    with torch.device("meta"):
        EgoMotionDenoiser(**preset.get("model_config", {}))


def test_a_data_set_on_a_licensed_body(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "neutral").mkdir()
    body = write_smplh(tmp_path / "neutral" / "model.npz")
    skeleton = Skeleton.from_smplh(body)
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        row = clip_to_row(Clip("a", "tiny", replace(moving_motion(20), skeleton=skeleton)))
        pq.write_table(rows_to_table([row]), tmp_path / "data" / split / "tiny-00000.parquet")
    data = script.DataArguments([str(tmp_path / "data")], smplh=str(body))
    assert len(script.train_windows(data, 16, 0)) == 1
    assert script.val_clips(data)[0].motion.body.name == "smplh-neutral"
    with pytest.raises(ValueError, match="refer to the body smplh-neutral, not mannequin-x-symmetric"):
        script.train_windows(script.DataArguments(data.dataset_name), 16, 0)
