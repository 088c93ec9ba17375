"""Rewards chosen by name: own functions, what is refused, defaults."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from motion_grpo.rewards import (
    REWARDS,
    ErrorReward,
    build_rewards,
    check_rewards,
    score,
    score_parts,
)
from tests.reward_inputs import inputs, still


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "from motion_grpo.rewards import ErrorReward\n"
        "number = 3\n"
        "def tall(inputs):\n    return inputs.joints[..., 2].amax(dim=(1, 2)).double()\n"
        "def per_frame(inputs):\n    return inputs.joints[..., 0, 2]\n"
        "def listed(inputs):\n    return [1.0] * len(inputs.mask)\n"
        "def broken(inputs):\n    return (inputs.joints[:, 0, 0, 0] - inputs.joints[0, 0, 0, 0]).log()\n"
        "low = ErrorReward(lambda inputs: inputs.joints[..., 0, 2], omega=2.0, needs_truth=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)


@pytest.mark.usefixtures("own_rewards")
def test_anybodys_function() -> None:
    batch = still(frames=4, samples=2)
    rewards = build_rewards(["position", "my_rewards:tall", "my_rewards:low"])
    assert list(rewards) == ["position", "tall", "low"]
    values, frames = score(rewards, batch), score_parts(rewards, batch)
    assert list(values) == list(frames) == list(rewards)
    assert_close(values["tall"], torch.ones(2))
    assert_close(frames["tall"], torch.ones(2, 4))
    assert_close(values["low"], torch.full((2,), math.exp(-2)))
    assert_close(frames["low"], torch.full((2, 4), math.exp(-2)))


@pytest.mark.usefixtures("own_rewards")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("per_frame", r"'per_frame' returned the shape \(3, 20\); it must be \(3,\)"),
        ("listed", "'listed' returned a list; it must return a tensor"),
        ("broken", "'broken' is NaN or infinite for sample 0 of 3"),
    ],
)
@pytest.mark.parametrize("scored", [score, score_parts])
def test_what_is_no_reward_is_named(scored: Callable, function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scored(build_rewards(["position", f"my_rewards:{function}"]), inputs())


def test_check_rewards_names_the_sample() -> None:
    check_rewards({}, (3,))
    check_rewards({"fine": torch.zeros(3, 2)}, (3, 2))
    bad = torch.zeros(3, 2)
    bad[2, 1] = float("inf")
    with pytest.raises(ValueError, match="'bad' is NaN or infinite for sample 2 of 3"):
        check_rewards({"fine": torch.zeros(3, 2), "bad": bad}, (3, 2))


def test_a_window_too_short_for_a_velocity() -> None:
    batch = inputs(frames=3)
    batch = replace(batch, mask=torch.tensor([[True, True, True], [True, False, False], [True, True, False]]))
    assert score(build_rewards(["position"]), batch)["position"].isfinite().all()
    with pytest.raises(ValueError, match=r"'velocity' is NaN or infinite for sample 1 of 3.*as many frames"):
        score(build_rewards(["position", "velocity"]), batch)


@pytest.mark.parametrize("scored", [score, score_parts])
def test_rewards_without_truth(scored: Callable) -> None:
    batch = replace(inputs(), true_body_rotmats=None, true_joints=None)
    assert scored(build_rewards(["jitter", "foot_skating"]), batch)["jitter"].isfinite().all()
    with pytest.raises(ValueError, match=r"rewards position, rotation compare with recorded motion.*ground truth"):
        scored(build_rewards(["jitter", "position", "rotation"]), batch)


@pytest.mark.parametrize(
    ("names", "keywords", "message"),
    [
        ([], {}, "There are no rewards; name some of visual, rotation"),
        (["speed"], {}, "There is no reward 'speed'; there are visual, rotation"),
        (["visual"], {}, "'visual' needs a perceptual model"),
        (["position", "position"], {}, "Two rewards are named 'position'"),
        (
            ["position"],
            {"omegas": {"rotation": 2.0}},
            "There is an omega for rotation, which is no built-in reward of this list; add it",
        ),
    ],
)
def test_senseless_lists_are_errors(names: list[str], keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_rewards(names, **keywords)


@pytest.mark.usefixtures("own_rewards")
def test_names_that_lead_nowhere() -> None:
    with pytest.raises(ImportError, match="'my_rewards:absent': module my_rewards has no absent"):
        build_rewards(["my_rewards:absent"])
    with pytest.raises(ImportError, match=r"'no_such_rewards:f' cannot be imported.*PYTHONPATH"):
        build_rewards(["no_such_rewards:f"])
    with pytest.raises(ValueError, match="'my_rewards:number' is a int; it must be a function"):
        build_rewards(["my_rewards:number"])


def test_defaults_are_left_alone() -> None:
    before = dict(REWARDS)
    build_rewards(["position"], omegas={"position": 5.0}, smooth_frames=3)
    assert before == REWARDS
    position = REWARDS["position"]
    assert position == ErrorReward(position.error, 1.0, 9, True, position.joint_error)
