"""What tests of cards share."""

import json
from pathlib import Path

from motion_grpo.cards.results import (
    weights_digest,
)
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.training import (
    DenoisingConfig,
    MotionDPOConfig,
    MotionGRPOConfig,
    PerceptualConfig,
    RewardGradientConfig,
)

CONFIGS = {
    "pipeline": DenoisingConfig,
    "grpo": MotionGRPOConfig,
    "reward_gradient": RewardGradientConfig,
    "dpo": MotionDPOConfig,
    "perceptual": PerceptualConfig,
}


def results_of(weights: Path, scale: float = 1.0, **settings) -> dict:
    """What ``motion-grpo evaluate`` would write."""

    def estimate(mean: float, unit: str) -> dict:
        return {"mean": scale * mean, "lo": scale * mean - 1, "hi": scale * mean + 1, "unit": unit}

    metrics = {"mpjpe": estimate(50.0, "mm"), "jitter": estimate(2.0, "100 m/s^3"), "head_error": estimate(0.5, "mm")}
    summary = {"clips": 3, "frames": 90, "systems": {"model": {"samples_per_clip": 2, "metrics": metrics}}}
    stated = {"weights_sha256": weights_digest(weights), "dataset": "open_mocap_smplh", "dataset_sha256": "d"}
    stated |= {"num_inference_steps": 5, "eta": 1.0, "seeds": [0, 1], "fps": 30.0}
    return {"settings": stated | settings, "limit": None, "splits": {"id_test": summary, "test": summary}}


def tiny_critic() -> MotionPerceptualModel:
    return MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, frames_per_token=4)


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def evaluate(folder: Path, results: dict) -> None:
    """Puts an evaluation into a checkpoint folder."""
    write_json(folder / "evaluation" / "results.json", results)
    (folder / "evaluation" / "results.md").write_text("| metric | value |\n| --- | --- |\n| mpjpe | 50 |\n")
