"""Three updates of a trainer of a policy, by however many processes this is launched with.

torchrun --nproc_per_node 2 policy_processes.py reward_gradient|dpo OUTPUT_DIR RESULT.pt PER_DEVICE ACCUMULATION
"""

import sys
from pathlib import Path

import torch

from tests.training import gradient_setup
from tests.training.dpo import setup as dpo_setup
from tests.training.grpo.setup import logged, weights

MAKERS = {"reward_gradient": (gradient_setup.trainer, "reward"), "dpo": (dpo_setup.trainer, "margin")}


def main(kind: str, output: str, result: str, per_device: str, accumulation: str) -> None:
    torch.set_num_threads(1)
    make, name = MAKERS[kind]
    run = make(
        Path(output),
        per_device_train_batch_size=int(per_device),
        gradient_accumulation_steps=int(accumulation),
        max_steps=3,
        learning_rate=1e-4,
        ema_decay=0.9,
    )
    run.train()
    if run.is_world_process_zero():
        found = {
            "processes": run.accelerator.num_processes,
            "weights": weights(run),
            "logged": torch.tensor(logged(run, name)),
        }
        torch.save(found, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
