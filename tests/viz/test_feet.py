import pytest

from motion_grpo.viz.feet import draw_feet
from tests.tiny import moving_motion


def test_draws_and_refuses_unknown_suffixes(tmp_path) -> None:
    motions = {"before": moving_motion(20), "after": moving_motion(20, seed=1)}
    assert draw_feet(motions, tmp_path / "feet.png", "a walk").stat().st_size > 10_000
    with pytest.raises(ValueError, match=r"cannot write \.pdf"):
        draw_feet(motions, tmp_path / "feet.pdf")
