"""Diffusion-DPO's loss, by hand."""

import math

import pytest
import torch

from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.training.dpo.objective import dpo_loss, state_error


def errors(winner: float, loser: float) -> dict[str, torch.Tensor]:
    return {"winner": torch.tensor([winner], requires_grad=True), "loser": torch.tensor([loser], requires_grad=True)}


def test_equal_models_lose_log_2():
    loss, margin = dpo_loss(errors(0.3, 0.1), errors(0.3, 0.1), torch.ones(1), 5000.0)
    assert float(loss) == pytest.approx(math.log(2))
    assert float(margin) == 0


def test_the_gradient_asks_for_the_winner():
    """d loss / d winner's error = beta w / 2 x sigmoid(-margin), and minus that for the loser's."""
    policy = errors(0.3, 0.1)
    loss, margin = dpo_loss(policy, errors(0.4, 0.1), torch.tensor([0.5]), 8.0)
    assert float(margin) == pytest.approx(-0.5 * 8 * 0.5 * (0.3 - 0.4))
    loss.backward()
    expected = 0.5 * 8 * 0.5 * (1 / (1 + math.exp(float(margin))))
    assert float(policy["winner"].grad) == pytest.approx(expected)
    assert float(policy["loser"].grad) == pytest.approx(-expected)


def test_a_state_s_error_by_hand():
    layout = StateLayout("6d", include_hands=False)
    truth = MotionState(torch.zeros(1, 4, 16), torch.eye(3).expand(1, 4, 21, 3, 3), torch.zeros(1, 4, 21)).pack(layout)
    predicted = truth.clone()
    predicted[..., :16] += 2.0  # betas
    predicted[:, 0, 16:142] += 1.0  # rotations of one frame
    predicted[:, 3] = float("nan")
    mask = torch.tensor([[True, True, True, False]])
    assert float(state_error(predicted, truth, layout, mask)) == pytest.approx(0.1 * 4 + 1.0 / 3)
