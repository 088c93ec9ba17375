"""What tests of the GRPO trainer share."""

import torch

from motion_grpo.training import MotionGRPOTrainer
from motion_grpo.training.grpo.experience import Experience

NUMBERS = [3, 3, 3, 3, 5, 5, 5, 5]


def experience(run: MotionGRPOTrainer, generation: int = 0) -> Experience:
    """The samples of one rollout of two conditions, scored."""
    run._step = generation * run.args.steps_per_generation * run.num_iterations
    return run._generate_and_score_completions({"condition": torch.tensor(NUMBERS)})


def watch_rollouts(run: MotionGRPOTrainer) -> list[Experience]:
    seen: list[Experience] = []
    original = run._generate_and_score_completions

    def watched(inputs: dict) -> Experience:
        seen.append(original(inputs))
        return seen[-1]

    run._generate_and_score_completions = watched
    return seen
