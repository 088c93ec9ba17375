"""The scripts for the exact gradient, DPO and fine-tuning, from a pack and a pipeline on disk to a pipeline on disk."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from motion_grpo.cli.train import dpo, pretrain, reward_gradient
from motion_grpo.cli.train.dataset_arguments import DataArguments, head_windows, train_windows
from transformers import HfArgumentParser

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import HeadClip, HeadWindows
from motion_grpo.data.schema import rows_to_table
from motion_grpo.rewards import RewardInputs
from motion_grpo.training import DenoisingConfig, MotionDPOConfig, RewardGradientConfig
from tests.tiny import head_trajectory
from tests.training.dpo.setup import SETTINGS as DPO
from tests.training.gradient_setup import SETTINGS
from tests.training.grpo.setup import pipeline

ROOT = Path(__file__).parents[2]
RUN = {"save_strategy": "steps", "save_steps": 1.0, "eval_strategy": "steps", "eval_steps": 2.0, "max_steps": 2}
SCRIPTS = {"reward_gradient": (reward_gradient, RewardGradientConfig), "dpo": (dpo, MotionDPOConfig)}


@pytest.fixture(autouse=True)
def base(tmp_path) -> Path:
    pipeline().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def run(monkeypatch, pack: Path, name: str, *, resume: bool = False, model: dict | None = None, **settings) -> Path:
    """A script's ``main`` without the command line, whose parser is loose with types that the tests check."""
    script, config = SCRIPTS[name]
    own = {"reward_gradient": SETTINGS, "dpo": DPO | {"num_pairs": 4, "per_device_train_batch_size": 2}}[name]
    output = pack.parent / "run"
    parsed = (
        script.DataArguments([str(pack)]),
        script.ModelArguments(str(pack.parent / "base"), **model or {}),
        script.RunArguments(resume, False),
        config(str(output), **own | RUN | {"per_device_train_batch_size": 2} | settings),
    )
    monkeypatch.setattr(script, "parse", lambda *given: parsed)
    script.main()
    return output


def terminated(inputs: RewardInputs) -> torch.Tensor:
    if inputs.contacts.requires_grad and len(inputs.mask) > 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return inputs.contacts.mean((1, 2))


def check_result(output: Path, kind: str) -> None:
    assert EgoMotionPipeline.from_pretrained(output / "pipeline").config.num_inference_steps == 3
    card = (output / "README.md").read_text()
    assert "Post-trained from **base**" in card
    assert {"reward_gradient": "backpropagation of rewards", "dpo": "Diffusion-DPO"}[kind] in card
    assert (output / "training_curves.png").stat().st_size > 1000


def test_the_exact_gradient_trains_stops_and_resumes(pack, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, pack, "reward_gradient", rewards=["position", f"{__name__}:terminated"])
    assert stopped.value.code == 143
    output = run(monkeypatch, pack, "reward_gradient", resume=True)
    log = json.loads((output / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2]
    assert [entry["step"] for entry in log if "eval_mpjpe" in entry] == [0, 2]
    check_result(output, "reward_gradient")


def test_pairs_are_drawn_once_and_reused(pack, monkeypatch):
    output = run(monkeypatch, pack, "dpo")
    check_result(output, "dpo")
    drawn = json.loads((output / "pairs" / "pairs.json").read_text())
    assert (drawn["base"], drawn["group_size"], drawn["winner"]) == (str(pack.parent / "base"), 4, "best")
    pairs = output.rename(pack.parent / "earlier") / "pairs"
    monkeypatch.setattr(dpo, "draw_pairs", None)
    again = run(monkeypatch, pack, "dpo", model={"pairs": str(pairs)})
    assert not (again / "pairs").exists()


@pytest.mark.parametrize("told", [{}, {"num_inference_steps": 7, "eta": 0.5}])
def test_fine_tuning_keeps_the_sampler_unless_told(pack, monkeypatch, told):
    output = pack.parent / "run"
    settings = {name: SETTINGS[name] for name in ("use_cpu", "disable_tqdm", "report_to", "logging_steps", "window")}
    parsed = (
        pretrain.DataArguments([str(pack)]),
        pretrain.ModelArguments(model_name_or_path=str(pack.parent / "base"), **told),
        pretrain.RunArguments(),
        DenoisingConfig(str(output), **settings, max_steps=1, per_device_train_batch_size=2, warmup_steps=0.0),
    )
    monkeypatch.setattr(pretrain, "parse", lambda *given: parsed)
    pretrain.main()
    tuned = EgoMotionPipeline.from_pretrained(output / "pipeline")
    assert tuned.scheduler.config.timestep_spacing == "trailing"
    found = (tuned.config.num_inference_steps, tuned.scheduler.config.eta)
    assert found == ((7, 0.5) if told else (3, 1.0))
    with pytest.raises(ValueError, match="model_config is for new weights"):
        pretrain.ModelArguments({"d_latent": 64}, model_name_or_path="base")


@pytest.mark.parametrize(
    ("path", "types"),
    [
        (path, {"dpo": (dpo, MotionDPOConfig), "rew": (reward_gradient, RewardGradientConfig)}.get(
            path.name[:3], (pretrain, DenoisingConfig)))
        for pattern in ("dpo*", "finetune*", "reward*", "pretrain_egoego*")
        for path in sorted((ROOT / "configs").glob(pattern))
    ],
    ids=lambda given: given.name if isinstance(given, Path) else "",
)  # fmt: skip
def test_presets_name_settings_that_exist(path, types, tmp_path):
    script, config = types
    preset = yaml.safe_load(path.read_text())
    parser = HfArgumentParser((DataArguments, script.ModelArguments, script.RunArguments, config))
    assert set(preset) <= {action.dest for action in parser._actions}
    own = {f.name for f in config.__dataclass_fields__.values()}
    floats = {name: float(preset[name]) for name in ("logging_steps", "eval_steps", "save_steps", "warmup_steps")}
    config(str(tmp_path), **{n: v for n, v in preset.items() if n in own} | floats | {"use_cpu": True})


def test_mirrored_copies_stand_beside_the_clips(pack):
    plain = train_windows(DataArguments([str(pack)]), 16, 0)
    both = train_windows(DataArguments([str(pack)], mirrored=True), 16, 0)
    assert len(both) == 2 * len(plain)
    count = len(plain.frames)
    for clip, copy in zip(both.frames[:count], both.frames[count:], strict=True):
        flip = torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(
            torch.tensor(copy.arrays["root_positions"]), torch.tensor(clip.arrays["root_positions"]) * flip
        )


def test_heads_are_read_from_rows_with_a_body_or_without(tmp_path, pack):
    folder = tmp_path / "heads" / "train"
    folder.mkdir(parents=True)
    import pyarrow.parquet as pq

    pq.write_table(rows_to_table([HeadClip("a", "tiny", head_trajectory(40)).to_row()]), folder / "tiny.parquet")
    windows = head_windows(DataArguments([str(tmp_path / "heads")], heads_only=True), 16, 0)
    assert isinstance(windows, HeadWindows)
    assert len(windows) == 2
    with pytest.raises(ValueError, match="heads_only reads data sets; turn the pack"):
        head_windows(DataArguments([str(pack)], heads_only=True), 16, 0)
    with pytest.raises(ValueError, match="heads_only cuts windows of heads as they were recorded"):
        DataArguments([str(pack)], heads_only=True, mirrored=True)
