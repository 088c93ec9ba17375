"""Training scripts in this process or in their own, on a pack and networks that take a second."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.tiny import moving_motion, tiny_pipeline, write_shard

ROOT = Path(__file__).parents[2]
TRAINING = {
    "use_cpu": True, "disable_tqdm": True, "report_to": "none", "logging_steps": 1.0, "save_steps": 2.0,
    "max_steps": 4, "warmup_steps": 0.0, "learning_rate": 1e-3, "per_device_train_batch_size": 2, "window": 16,
}  # fmt: skip
SETTINGS = {
    "pretrain": TRAINING,
    "perceptual": TRAINING | {"num_negatives": 3, "num_inference_steps": 2},
    "grpo": TRAINING | {
        "num_generations": 4, "per_device_train_batch_size": 8, "num_sampling_steps": 3, "exploration_components": 4,
        "rewards": ["rotation", "position"], "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "constant",
    },
    "finetune": TRAINING,
    "reward": TRAINING | {"num_sampling_steps": 3, "rewards": ["rotation", "position"]},
    "dpo": TRAINING | {
        "num_sampling_steps": 3, "num_pairs": 4, "num_generations": 4, "rewards": ["rotation", "position"],
    },
}  # fmt: skip
DENOISER = {
    "d_latent": 16, "d_feedforward": 16, "d_noise_emb": 8, "num_heads": 2, "num_encoder_layers": 1,
    "num_decoder_layers": 1, "noise_conditioning": "film", "noise_in_encoder": False, "include_hands": False,
    "rotation_representation": "6d",
}  # fmt: skip
CRITIC = {"d_latent": 16, "num_blocks": 1, "num_heads": 2, "frames_per_token": 4}
_CONFIGS = {"pretrain": "DenoisingConfig", "perceptual": "PerceptualConfig", "grpo": "MotionGRPOConfig"}


def write_pack(folder: Path) -> Path:
    """Three recorded motions to train on, one to evaluate on."""
    folder.mkdir()
    write_shard(folder, "cmu", "train", [moving_motion(40, seed) for seed in range(3)])
    write_shard(folder, "cmu", "val", [moving_motion(20, 7)])
    return folder


def models_of(script: str, folder: Path) -> dict:
    """Arguments of a script about its models; what it starts from is written to ``folder``/base."""
    if script == "pretrain":
        return {"model_config": DENOISER, "num_inference_steps": 5, "eta": 0.25}
    if not (folder / "base").exists():
        torch.manual_seed(0)
        tiny_pipeline(3, rotation_representation="6d").save_pretrained(folder / "base")
    if script == "perceptual":
        return {"model_config": CRITIC, "policies": [str(folder / "base")]}
    return {"model_name_or_path": str(folder / "base")}


def train(
    monkeypatch: pytest.MonkeyPatch, script: str, folder: Path, *, output: str = "run", resume: bool = False, **settings
) -> Path:
    """A script's ``main`` on ``folder``/pack without the command line, whose parser is loose with types.

    Returns:
        The output folder.
    """
    module = import_module(f"motion_grpo.cli.train.{script}")
    parsed = (
        module.DataArguments([str(folder / "pack")]),
        module.ModelArguments(**models_of(script, folder)),
        module.RunArguments(resume=resume),
        vars(module)[_CONFIGS[script]](str(folder / output), **SETTINGS[script] | settings),
    )
    monkeypatch.setattr(module, "parse", lambda *given: parsed)
    module.main()
    return folder / output
