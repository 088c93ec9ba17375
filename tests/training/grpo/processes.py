"""Three updates of GRPO, by however many processes this is launched with; the first writes what came of them.

torchrun --nproc_per_node 2 grpo_processes.py OUTPUT_DIR RESULT.pt PER_DEVICE ACCUMULATION
"""

import sys
from pathlib import Path

import torch

from motion_grpo.training import MotionGRPOTrainer
from motion_grpo.training.grpo.experience import Experience
from tests.training.grpo.setup import config, pipeline, weights, windows


class Recording(MotionGRPOTrainer):
    """Keeps the advantages of every rollout, those of all processes."""

    def _generate_and_score_completions(self, inputs: dict) -> Experience:
        drawn = super()._generate_and_score_completions(inputs)
        self.recorded.append(self.accelerator.gather(drawn.advantages))
        return drawn


def main(output: str, result: str, per_device: str, accumulation: str) -> None:
    torch.set_num_threads(1)
    args = config(
        Path(output),
        per_device_train_batch_size=int(per_device),
        gradient_accumulation_steps=int(accumulation),
        max_steps=3,
        learning_rate=1e-4,
        credit="frame",
        exploration="smooth",
        beta=0.1,
    )
    run = Recording(pipeline(), args, windows())
    run.recorded = []
    run.train()
    if run.is_world_process_zero():
        rewards = [entry for entry in run.state.log_history if "reward" in entry]
        found = {
            "processes": run.accelerator.num_processes,
            "weights": weights(run),
            "advantages": torch.stack(run.recorded),
            "rewards": torch.tensor([[v for k, v in entry.items() if k.startswith("rewards/")] for entry in rewards]),
            "diversity": torch.tensor([entry["diversity"] for entry in rewards]),
        }
        torch.save(found, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
