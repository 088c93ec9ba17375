import json
from dataclasses import replace

import pytest

from motion_grpo import EgoMotionPipeline, GuidanceConfig
from motion_grpo.guidance import MODES
from tests.tiny import head_trajectory, tiny_pipeline


def test_what_a_pipeline_takes() -> None:
    config = GuidanceConfig("hamer_wrist", inner=True, skating=10.0)
    assert GuidanceConfig.of(config) is config
    assert GuidanceConfig.of(json.loads(json.dumps(config.to_dict()))) == config
    assert [GuidanceConfig.of(mode).mode for mode in MODES] == list(MODES)
    assert GuidanceConfig.of(None) is GuidanceConfig.of("off") is None
    assert str(config) == "hamer_wrist (inner 5, post 20, skating 10)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no_feet", "guidance mode is 'no_feet'; choose one of off, no_hands, "),
        ({"mode": "no_feet"}, "guidance mode is 'no_feet'"),
        ({"skatting": 3}, "unknown settings skatting"),
        ({"skating": -1.0}, "skating is -1.0; give a number that is not negative"),
        ({"skating": float("nan")}, "skating is nan"),
        ({"post_iterations": 0}, "post_iterations is 0; give a whole number of at least 1"),
        (3, "guidance is a int; give a mode or a GuidanceConfig"),
    ],
)
def test_bad_settings(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidanceConfig.of(given)


def test_travels_with_the_pipeline(tmp_path) -> None:
    config = GuidanceConfig(post_iterations=2, skating=7.0)
    plain = tiny_pipeline()
    pipe = EgoMotionPipeline(plain.denoiser, plain.scheduler, 2, 16, 4, guidance=config)
    pipe.save_pretrained(tmp_path)
    loaded = EgoMotionPipeline.from_pretrained(tmp_path)
    assert GuidanceConfig.of(loaded.config.guidance) == config
    assert loaded(head_trajectory(8)).guidance.iterations <= 2
    assert loaded(head_trajectory(8), guidance="off").guidance is None
    changed = EgoMotionPipeline.from_pretrained(tmp_path, guidance=replace(config, skating=1.0))
    assert changed.config.guidance["skating"] == 1.0
    assert plain(head_trajectory(8)).guidance is None
