"""The first update of configs/grpo_authors.yaml: 64 conditions x 16, 30 steps, 128 frames; prints its peak in GB.

python tests/training/grpo/authors_memory.py OUTPUT_DIR
"""

import resource
import sys
from pathlib import Path

import torch
import yaml

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import MotionWindows
from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer
from tests.tiny import moving_clip

ROOT = Path(__file__).parents[3]


def main(output: str) -> None:
    torch.set_num_threads(1)
    preset = yaml.safe_load((ROOT / "configs" / "grpo_authors.yaml").read_text())
    settings = {name: value for name, value in preset.items() if name != "mirrored"}
    settings |= {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "use_cpu": True, "logging_steps": 1}
    args = MotionGRPOConfig(output, disable_tqdm=True, **settings)
    windows = MotionWindows([moving_clip(128 * 8, seed) for seed in range(8)], args.window, seed=0)
    run = MotionGRPOTrainer(EgoMotionPipeline.from_pretrained("paper_base"), args, windows)
    run.train()
    assert len(run._buffered_inputs) == 16
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)


if __name__ == "__main__":
    main(*sys.argv[1:])
