from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from motion_grpo.viz import curves, plot_grpo_run, plot_training_log
from motion_grpo.viz.curves import logged_curves, unit_of

TERMS = ("betas", "body_rotmats", "contacts", "position", "velocity", "foot_contact")


def history(steps: int = 60) -> list[dict]:
    log: list[dict] = []
    for step in range(1, steps + 1):
        loss = 3.0 / step
        terms = {f"loss/{name}": 0.1 * loss for name in TERMS}
        log.append({"loss": loss, "grad_norm": 1.0 + loss, "learning_rate": 6e-5, **terms, "epoch": 0.1, "step": step})
        if step % 20 == 0:
            metrics = {"eval_mpjpe": 90.0 - step, "eval_jitter": 3.5, "eval_ground_contact_egoallo": 0.5}
            log.append({**metrics, "eval_runtime": 2.0, "eval_samples_per_second": 3.0, "epoch": 0.1, "step": step})
    log.append({"train_runtime": 9.0, "train_loss": 1.0, "total_flos": 0.0, "epoch": 0.1, "step": steps})
    return log


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures = []
    save = curves.save_figure
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


def panels(figure: Figure) -> dict:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_quantities_are_sorted_and_bookkeeping_is_left_out() -> None:
    found = logged_curves(history())
    assert list(found) == [
        "loss", *(f"loss/{name}" for name in TERMS), "grad_norm", "learning_rate",
        "eval_mpjpe", "eval_jitter", "eval_ground_contact_egoallo",
    ]  # fmt: skip
    steps, values = found["eval_mpjpe"]
    assert steps.tolist() == [20, 40, 60]
    assert values.tolist() == [70.0, 50.0, 30.0]


def test_a_resumed_run_keeps_the_latest_and_nothing_that_is_not_finite() -> None:
    log = [
        {"loss": 3.0, "step": 2},
        {"loss": float("nan"), "step": 3},
        {"loss": 1.0, "step": 2},
        {"loss": 5, "step": 1},
    ]
    log += [{"loss": 7.0}, {"note": "text", "flag": True, "step": 4}]
    found = logged_curves(log)
    assert list(found) == ["loss"]
    assert found["loss"][0].tolist() == [1, 2]
    assert found["loss"][1].tolist() == [5.0, 1.0]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("eval_mpjpe", "mm"),
        ("eval_mpjve", "mm/s"),
        ("eval_jitter", "100 m/s^3"),
        ("eval_cmu_pa_mpjpe", "mm"),
        ("eval_cmu_ground_penetration", "m"),
        ("loss/position", "m"),
        ("loss/velocity", "m/s"),
        ("loss/betas", None),
        ("eval_something", None),
    ],
)
def test_units(name: str, unit: str | None) -> None:
    assert unit_of(name) == unit


def test_the_picture(tmp_path: Path, drawn: list[Figure]) -> None:
    path = plot_training_log(history(), tmp_path / "log.png")
    assert imread(path).shape[1] == 1600
    assert [file.name for file in tmp_path.iterdir()] == ["log.png"]
    axes = panels(drawn[0])
    assert len(axes) == 12
    assert axes["loss"].get_yscale() == "log"
    assert axes["eval_mpjpe"].get_yscale() == axes["learning_rate"].get_yscale() == "linear"
    assert axes["eval_mpjpe"].get_ylabel() == "mm"
    assert axes["eval_mpjpe"].get_title(loc="right") == "30"
    assert axes["loss"].get_xlabel() == "step"
    np.testing.assert_allclose(axes["loss"].lines[0].get_ydata(), 3.0 / np.arange(1, 61))


def test_a_loss_that_changes_sign_is_on_a_linear_scale(tmp_path: Path, drawn: list[Figure]) -> None:
    log = [{"loss": 0.1 * (-1) ** step, "reward": step, "step": step} for step in range(5)]
    plot_training_log(log, tmp_path / "log.png")
    assert panels(drawn[0])["loss"].get_yscale() == "linear"


def test_many_values_get_a_centred_moving_average(tmp_path: Path, drawn: list[Figure]) -> None:
    log = [{"kl": 2.0 * step, "step": step} for step in range(400)]
    plot_training_log(log, tmp_path / "log.png")
    raw, mean = panels(drawn[0])["kl"].lines
    assert len(raw.get_xdata()) == 400
    x, y = mean.get_data()
    np.testing.assert_allclose(y, 2.0 * np.asarray(x), atol=2.0)  # a straight line stays where it is
    assert len(x) == 381


def test_titles_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    log = [
        {f"rewards/a_very_long_name_of_a_reward_{k}/mean": -1.234e-5, "step": step} for k in range(8) for step in (1, 2)
    ]
    plot_training_log(log, tmp_path / "log.png")
    figure = drawn[0]
    renderer = figure.canvas.get_renderer()
    boxes = [
        text.get_window_extent(renderer)
        for axes in figure.axes
        for text in (axes.title, axes._left_title, axes._right_title)
        if text.get_text()
    ]
    assert len(boxes) == 16
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("log", [[], [{"loss": 1.0}], [{"loss": float("inf"), "step": 1}]])
def test_an_empty_log_is_an_error(tmp_path: Path, log: list[dict]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_training_log(log, tmp_path / "log.png")


def test_bad_paths_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log\.txt.*\.png"):
        plot_training_log(history(), tmp_path / "log.txt")
    with pytest.raises(FileNotFoundError, match="make it first"):
        plot_training_log(history(), tmp_path / "no" / "log.png")


def grpo_history(steps: int = 30) -> list[dict]:
    log: list[dict] = []
    for step in range(1, steps + 1):
        rewards = {f"rewards/{name}/mean": 0.5 + 0.01 * step for name in ("visual", "position")}
        spreads = {f"rewards/{name}/std": 0.1 for name in ("visual", "position")}
        log.append(
            {
                "loss": -1e-6 * step, "reward": 3.0 + 0.1 * step, **rewards, **spreads, "advantages/std": 0.6,
                "frac_reward_zero_std": 0.0, "diversity": 4.0, "ratio/mean": 1.0, "ratio/std": 1e-4,
                "clip_fraction": 0.2, "grad_norm": 2.0 * step, "rollout_seconds": 3.0, "reward_seconds": 0.5,
                "update_seconds": 9.0, "learning_rate": 1e-5, "num_tokens": 7, "step": step,
            }
        )  # fmt: skip
        if step % 10 == 0:
            log.append({"eval_mpjpe": 90.0 - step, "eval_runtime": 3.0, "step": step})
    return log


def test_the_curves_of_a_grpo_run(tmp_path: Path, drawn: list[Figure]) -> None:
    path = plot_grpo_run(grpo_history(), tmp_path / "grpo.png")
    assert imread(path).shape[1] == 1600
    axes = panels(drawn[0])
    assert list(axes) == [
        "reward", "rewards/visual", "rewards/position", "advantages/std", "frac_reward_zero_std", "diversity", "ratio",
        "clip_fraction", "grad_norm", "seconds", "eval_mpjpe",
    ]  # fmt: skip
    np.testing.assert_allclose(axes["reward"].lines[0].get_ydata(), 3.0 + 0.1 * np.arange(1, 31))
    np.testing.assert_allclose(axes["rewards/position"].lines[0].get_ydata(), 0.5 + 0.01 * np.arange(1, 31))
    assert axes["rewards/position"].get_title(loc="right") == "0.8"
    assert axes["grad_norm"].get_yscale() == "log"
    assert axes["eval_mpjpe"].get_ylabel() == "mm"


def test_a_reward_lies_in_a_band_of_its_standard_deviation(tmp_path: Path, drawn: list[Figure]) -> None:
    log = grpo_history()
    log[3]["rewards/position/std"] = float("nan")  # of one step nothing is known
    del log[4]["rewards/position/mean"]
    plot_grpo_run(log, tmp_path / "grpo.png")
    axes = panels(drawn[0])
    (band,) = axes["rewards/position"].collections
    outline = band.get_paths()[0].vertices
    assert set(outline[:, 0].astype(int)) == set(range(1, 31)) - {4, 5}
    last = outline[outline[:, 0] == 30, 1]
    assert (last.min(), last.max()) == pytest.approx((0.7, 0.9))
    assert not axes["reward"].collections


def test_seconds_share_a_panel_and_a_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_grpo_run(grpo_history(), tmp_path / "grpo.png")
    axes = panels(drawn[0])["seconds"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rollout", "rewards", "update"]
    assert [line.get_ydata()[0] for line in axes.lines] == [3.0, 0.5, 9.0]
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.get_title(loc="right") == ""


def test_a_long_run_keeps_one_legend_entry_a_line(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_grpo_run(grpo_history(150), tmp_path / "grpo.png")
    axes = panels(drawn[0])["seconds"]
    assert len(axes.lines) == 6  # raw and averaged
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rollout", "rewards", "update"]


def test_panels_without_data_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_grpo_run([{"reward": 1.0, "kl": 0.1, "step": 1}], tmp_path / "grpo.png")
    assert list(panels(drawn[0])) == ["reward", "kl"]


def test_a_run_without_rewards_is_no_grpo_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no reward, so it is not that of a GRPO run"):
        plot_grpo_run(history(), tmp_path / "grpo.png")
