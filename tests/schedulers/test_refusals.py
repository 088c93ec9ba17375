"""Schedulers and settings that do not fit are refused in one sentence."""

import pytest
import torch

from motion_grpo.schedulers import (
    EgoMotionSDEScheduler,
    refuse_incompatible,
)
from tests.schedulers.setup import OURS, SHAPE, scheduler_with, states


@pytest.mark.parametrize("kind", sorted(EgoMotionSDEScheduler().compatibles, key=lambda kind: kind.__name__))
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_schedulers_that_fit_are_not(kind: type, spacing: str) -> None:
    refuse_incompatible(kind.from_config(OURS, timestep_spacing=spacing), 1000)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"timestep_spacing": "linspace"}, "linspace"),
        ({"variance": "learned"}, "learned"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"direction_offset": -1.0}, "direction_offset"),
        ({"prediction_type": "epsilon"}, "epsilon"),
        ({"beta_schedule": "linear"}, "linear"),
        ({"clip_sample": True}, "clip_sample=True"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0"),
    ],
)
def test_bad_configurations_are_named(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EgoMotionSDEScheduler(**config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 1001}, r"1\.\.1000"),
        ({}, "either num_inference_steps or timesteps"),
        ({"num_inference_steps": 2, "timesteps": [2, 1]}, "not both"),
        ({"timesteps": [10, 20]}, "strictly decreasing"),
        ({"timesteps": [10, 10]}, "strictly decreasing"),
        ({"timesteps": [1001, 5]}, "1001, 5"),
        ({"timesteps": [5, -1]}, "5, -1"),
        ({"timesteps": [0]}, r"got \[0\]"),
        ({"timesteps": []}, r"got \[\]"),
    ],
)
def test_bad_schedules_are_named(arguments: dict, message: str) -> None:
    scheduler = scheduler_with(3)
    before = scheduler.levels.tolist()
    with pytest.raises(ValueError, match=message):
        scheduler.set_timesteps(**arguments)
    assert scheduler.levels.tolist() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timestep": 840}, r"\[840\] are not in the current schedule of 30 steps"),
        ({"timestep": torch.tensor([841, 5, 4, 6])}, r"\[5, 6\]"),
        ({"timestep": 0}, r"1\.\.1000"),
        ({"eta": -1.0}, "eta is -1.0"),
        ({"eta": 1.5}, "eta=1.5 .* level 1000"),
        ({"prev_timestep": 1000}, "1000 to 1000"),
        ({"prev_timestep": -1}, "prev_timestep"),
        ({"generator": [torch.Generator()]}, "1 generators for 4 rows"),
        ({"generator": torch.Generator(), "prev_sample": torch.zeros(SHAPE)}, "one source"),
        ({"generator": torch.Generator(), "variance_noise": torch.zeros(SHAPE)}, "one source"),
        ({"eta": 0.0, "prev_sample": torch.zeros(SHAPE)}, "no density"),
    ],
)
def test_bad_steps_are_named(arguments: dict, message: str) -> None:
    scheduler = scheduler_with(30)
    original, state = states()
    with pytest.raises(ValueError, match=message):
        scheduler.step(**{"model_output": original, "timestep": 1000, "sample": state, **arguments})


def test_egoallos_noise_does_not_fit_into_few_steps() -> None:
    scheduler = EgoMotionSDEScheduler.egoallo()
    scheduler.set_timesteps(3)
    original, state = states()
    with pytest.raises(ValueError, match=r"single_level.*level 1000 than level 400"):
        scheduler.step(original, 1000, state)
