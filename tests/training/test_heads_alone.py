"""Post-training where nobody recorded the body."""

import pytest
import torch

from motion_grpo.data import HeadWindows
from motion_grpo.training import MotionGRPOTrainer, RewardGradientTrainer
from tests.tiny import head_trajectory
from tests.training.gradient_setup import config as gradient_config
from tests.training.grpo.setup import WINDOW, config, logged, pipeline, weights

TRUTH_FREE = ["ground_penetration", "foot_skating", "jitter"]
MAKERS = {"grpo": (MotionGRPOTrainer, config), "reward_gradient": (RewardGradientTrainer, gradient_config)}


def heads() -> HeadWindows:
    return HeadWindows([head_trajectory(frames) for frames in (40, 60, 12, 50)], WINDOW, seed=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_trains_by_rewards_that_need_no_truth(kind, tmp_path):
    make, settings = MAKERS[kind]
    run = make(pipeline(), settings(tmp_path, rewards=TRUTH_FREE), heads())
    before = weights(run)
    run.train()
    assert not torch.equal(weights(run), before)
    assert len(logged(run, "rewards/jitter/mean")) == 2


@pytest.mark.parametrize("kind", MAKERS)
def test_rewards_that_need_one_are_refused_before_anything_starts(kind, tmp_path):
    make, settings = MAKERS[kind]
    with pytest.raises(ValueError, match="The rewards position, foot_contact compare with recorded motion, and train"):
        make(pipeline(), settings(tmp_path, rewards=["position", "jitter", "foot_contact"]), heads())
