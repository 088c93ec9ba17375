import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from motion_grpo.evaluation.critic import SeverityCurve
from motion_grpo.viz import severity
from motion_grpo.viz.severity import plot_severity


def curve(top: float, unit: str = "m/s") -> SeverityCurve:
    return SeverityCurve(unit, [0.0, 0.05, 1.6], [top, top / 2, top / 8], -0.876, -0.9, -0.8, -0.7, 12)


def test_one_panel_an_artefact_one_line_a_method(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = severity.save_figure
    monkeypatch.setattr(severity, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    methods = {
        name: {"foot_sliding": curve(top), "jitter": curve(0.5, "rad")} for name, top in (("a", 0.9), ("b", 0.4))
    }
    path = plot_severity({"id_test": methods, "test": methods}, tmp_path / "severity.png")
    assert imread(path).shape[1] == 1600
    panels = {axes.get_title(loc="left"): axes for axes in figures[0].axes}
    assert list(panels) == ["id test: foot sliding", "id test: jitter", "test: foot sliding", "test: jitter"]
    axes = panels["test: foot sliding"]
    assert [line.get_label() for line in axes.lines] == ["a (-0.88)", "b (-0.88)"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.9, 0.45, 0.1125], [0.4, 0.2, 0.05]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.05", "1.6"]
    assert axes.get_xlabel() == "severity, m/s"


def test_opposites_share_a_panel_with_the_recording_between(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = severity.save_figure
    monkeypatch.setattr(severity, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    sinking = SeverityCurve("m", [0.0, 0.01, 0.4], [0.9, 0.6, 0.1], -1.0, -1.0, -1.0, -0.9, 12)
    hovering = SeverityCurve("m", [0.0, 0.01, 0.4], [0.9, 0.5, 0.2], -0.75, -0.8, -0.7, -0.6, 12)
    of = {"hovering": hovering, "jitter": curve(0.5, "rad"), "floor_penetration": sinking}
    plot_severity({"test": {"a": of}}, tmp_path / "severity.png")
    pair, alone = figures[0].axes
    assert pair.get_title(loc="left") == "test: floor penetration / hovering"
    (line,) = [line for line in pair.lines if line.get_label() == "a (-1.00, -0.75)"]
    assert list(line.get_xdata()) == [-2, -1, 0, 1, 2]
    assert list(line.get_ydata()) == [0.1, 0.6, 0.9, 0.5, 0.2]
    ticks = {tick: label.get_text() for tick, label in zip(pair.get_xticks(), pair.get_xticklabels(), strict=True)}
    assert ticks == {-2: "0.4", 0: "0", 2: "0.4"}
    assert pair.get_xlabel() == "floor penetration, m  <  recording  >  hovering, m"
    assert alone.get_title(loc="left") == "test: jitter"


def test_nothing_to_draw_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match="no curves to draw"):
        plot_severity({}, tmp_path / "severity.png")
    with pytest.raises(ValueError, match=r"cannot write \.gif"):
        plot_severity({"test": {"a": {"jitter": curve(0.5)}}}, tmp_path / "severity.gif")
