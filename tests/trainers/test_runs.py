"""The command line that the training scripts share."""

import json
import os
import subprocess
import sys

import pytest
from motion_grpo.cli.train import dpo, grpo, perceptual, pretrain, reward_gradient
from motion_grpo.cli.train.runs import Parser, RunArguments

from motion_grpo.training import (
    DenoisingConfig,
    MotionDPOConfig,
    MotionGRPOConfig,
    PerceptualConfig,
    RewardGradientConfig,
)
from motion_grpo.training.settings import (
    WITHOUT_EFFECT_DENOISING,
    WITHOUT_EFFECT_GRPO,
    WITHOUT_EFFECT_PERCEPTUAL,
    WITHOUT_EFFECT_POLICY,
)

SCRIPTS = {
    "grpo": (grpo, MotionGRPOConfig, WITHOUT_EFFECT_GRPO),
    "pretrain": (pretrain, DenoisingConfig, WITHOUT_EFFECT_DENOISING),
    "reward_gradient": (reward_gradient, RewardGradientConfig, WITHOUT_EFFECT_POLICY),
    "dpo": (dpo, MotionDPOConfig, WITHOUT_EFFECT_POLICY),
    "perceptual": (perceptual, PerceptualConfig, WITHOUT_EFFECT_PERCEPTUAL),
}


def types_of(name: str) -> tuple[type, ...]:
    script, config, _ = SCRIPTS[name]
    return (script.DataArguments, script.ModelArguments, RunArguments, config)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_first_what_is_ours(name):
    script, config, without_effect = SCRIPTS[name]
    text = Parser(types_of(name), without_effect, script.__doc__).format_help()
    assert text.startswith("usage: ")
    assert script.__doc__.splitlines()[0] in " ".join(text.split())
    ours, inherited = text.split("inherited from transformers and TRL:")
    for option in ("dataset_name", "output_dir", "resume", "overwrite", "model_name_or_path", "window"):
        assert f"--{option} " in ours, option
    own = set(config.__annotations__) - set(without_effect)
    assert all(f"--{option}" in ours and f"--{option} " not in inherited for option in own)
    for option in ("adam_beta1", "save_total_limit", "hub_model_id", "num_train_epochs"):
        assert f"--{option} " in inherited, option
        assert f"--{option} " not in ours, option
    # What does nothing is not offered.
    assert not [option for option in without_effect if f"--{option} " in text or f"--{option}," in text]


@pytest.mark.slow
def test_command_lines(tmp_path):
    """In a process of its own: the parser is loose with types that the tests check."""
    (tmp_path / "run.yaml").write_text("reward_omegas: {rotation: 2.0}\nresume: true\nnum_generations: 8\n")
    given = {
        "omegas": ["grpo", "--reward_omegas", '{"rotation": 2.0, "velocity": 0.5}'],
        "file": ["grpo", "--config", "run.yaml", "--num_generations", "4"],
        "network": ["pretrain", "--model_config", '{"d_latent": 64}'],
        "critic": ["perceptual", "--model_config", "{d_latent: 64}"],
        "no network": ["pretrain", "--model_config", "64"],
        "vllm": ["grpo", "--use_vllm"],
        "smoothing": ["pretrain", "--label_smoothing_factor", "0.1"],
    }
    program = (
        "import importlib, json, sys\n"
        "from dataclasses import asdict\n"
        "from motion_grpo.training import settings\n"
        "from motion_grpo.cli.train import runs\n"
        "for name, (script, *arguments) in json.loads(sys.argv[1]).items():\n"
        "    module = importlib.import_module('motion_grpo.cli.train.' + script)\n"
        "    config = {'grpo': 'MotionGRPOConfig', 'pretrain': 'DenoisingConfig'}.get(script, 'PerceptualConfig')\n"
        "    types = (module.DataArguments, module.ModelArguments, runs.RunArguments, vars(module)[config])\n"
        "    common = '--dataset_name data --output_dir out --use_cpu --report_to none'.split()\n"
        "    sys.argv[1:] = [*common, *arguments]\n"
        "    try:\n"
        "        _, model, run, args = runs.parse(types, settings.WITHOUT_EFFECT, 'A script.')\n"
        "    except ValueError as error:\n"
        "        print(name, '|', error)\n"
        "    else:\n"
        "        print(name, '|', {**asdict(model), **asdict(run), **args.to_dict()})\n"
    )
    command = [sys.executable, "-c", program, json.dumps(given)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert "'reward_omegas': {'rotation': 2.0, 'velocity': 0.5}" in said["omegas"]
    for text in ("'num_generations': 4,", "'resume': True", "'reward_omegas': {'rotation': 2.0}"):
        assert text in said["file"]
    assert "'model_config': {'d_latent': 64}" in said["network"]
    assert "'model_config': {'d_latent': 64}" in said["critic"]
    assert said["no network"].startswith("model_config is '64'; it must be a mapping")
    assert said["vllm"].startswith("use_vllm is True, but has no effect here")
    assert said["smoothing"].startswith("label_smoothing_factor is 0.1, but has no effect here")
