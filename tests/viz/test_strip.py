from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from motion_grpo import metrics
from motion_grpo.body import NUM_BODY_JOINTS, Skeleton
from motion_grpo.motion import Motion
from motion_grpo.viz import draw_strip, strip
from motion_grpo.viz.raster import Camera
from motion_grpo.viz.strip import head_path, joint_errors, walking_direction


def walk(
    heading: float = 0.7, speed: float = 1.2, frames: int = 31, fps: float = 30.0, facing: float | None = None
) -> Motion:
    """Somebody with swinging limbs who moves along ``heading`` (radians from x), facing it unless told otherwise."""
    time = torch.arange(frames, dtype=torch.float64) / fps
    facing = heading if facing is None else facing
    y_up_to_x_ahead = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    root = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, facing])) @ y_up_to_x_ahead
    direction = torch.tensor([np.cos(heading), np.sin(heading), 0.0], dtype=torch.float64)
    swing = torch.zeros(frames, NUM_BODY_JOINTS, 3)
    swing[:, 0, 0], swing[:, 1, 0] = 0.5 * torch.sin(6 * time).float(), -0.5 * torch.sin(6 * time).float()
    swing[:, 15, 2], swing[:, 16, 2] = -1.2, 1.2
    return Motion(
        root_rotmats=root.expand(frames, 3, 3),
        root_positions=(speed * time[:, None] * direction + torch.tensor([2.0, -1.0, 0.95])).float(),
        body_rotmats=roma.rotvec_to_rotmat(swing),
        betas=torch.zeros(16),
        contacts=torch.zeros(frames, NUM_BODY_JOINTS),
        timestamps=time,
    )


def shifted(motion: Motion, *offset: float) -> Motion:
    return replace(motion, root_positions=motion.root_positions + torch.tensor(offset))


def as_sticks(motion: Motion) -> Motion:
    return replace(motion, skeleton=replace(Skeleton.default(), name="smplh_neutral"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures = []
    save = strip.save_figure
    monkeypatch.setattr(strip, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_two_motions_make_two_rows_and_an_error(tmp_path: Path, drawn: list[Figure]) -> None:
    truth = as_sticks(walk())
    path = draw_strip(
        {"predicted": shifted(truth, 0.0, 0.0, 0.1), "truth": truth}, tmp_path / "a.png", num_poses=3, title="T"
    )
    assert imread(path).shape[1] == 1600
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    (figure,) = drawn
    assert len(figure.axes) == 2 * 3 + 3
    assert any("mean joint error 100 mm" in text for text in texts(figure))
    assert {"T", "predicted", "truth", "0.00 s", "0.50 s", "1.00 s"} <= set(texts(figure))


def test_frames_show_the_motion_where_it_is(tmp_path: Path, drawn: list[Figure]) -> None:
    motion = replace(shifted(walk(), 0.0, 0.0, 0.4), floor_height=0.4)
    draw_strip({"walk": motion}, tmp_path / "a.png", num_poses=2)
    camera = Camera.beside(walking_direction(motion))
    floor = np.array([0.0, 0.0, 0.4])
    path = camera.project(head_path(motion) - floor)
    for axes, frame in zip(drawn[0].axes[:2], (0, 30), strict=True):
        np.testing.assert_allclose(np.stack(axes.lines[0].get_data(), -1), path[:, :2], atol=1e-6)
        # Every large joint lies inside the picture of the body, and the body ends where the mesh does.
        body = max(axes.images, key=lambda image: image.zorder)
        left, right, bottom, top = body.get_extent()
        alpha = body.get_array()[..., 3]
        joints = camera.project(motion.joints[frame, [0, 4, 5, 7, 8, 12, 15, 18, 19]].numpy() - floor)
        columns = (joints[:, 0] - left) / (right - left) * alpha.shape[1]
        rows = (top - joints[:, 1]) / (top - bottom) * alpha.shape[0]
        assert alpha[rows.astype(int), columns.astype(int)].all()
        covered = alpha.mean()
        assert 0.05 < covered < 0.5
        assert not alpha[:3].any()
        assert not alpha[:, :3].any()


def test_the_walker_goes_from_left_to_right_in_the_plan(tmp_path: Path, drawn: list[Figure]) -> None:
    motion = as_sticks(walk(speed=1.0))
    draw_strip({"walk": motion}, tmp_path / "a.png", num_poses=4)
    plan = drawn[0].axes[4]
    x, y = plan.lines[0].get_data()
    assert (x[0], y[0]) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert (x[-1], y[-1]) == pytest.approx((1.0, 0.0), abs=1e-4)
    box = plan.get_window_extent()
    scale_x, scale_y = np.ptp(plan.get_xlim()) / box.width, np.ptp(plan.get_ylim()) / box.height
    assert scale_x == pytest.approx(scale_y, rel=1e-6)
    height = drawn[0].axes[5].lines[0].get_ydata()
    np.testing.assert_allclose(height, head_path(motion)[:, 2], atol=1e-6)


def test_other_bodies_are_stick_figures(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_strip({"sticks": as_sticks(walk()), "mesh": walk()}, tmp_path / "a.png", num_poses=1)
    sticks, mesh = drawn[0].axes[:2]
    assert not sticks.images
    assert len(mesh.images) == 2  # shadow and body
    assert len(sticks.collections) > len(mesh.collections)


def test_texts_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    motion = as_sticks(walk())
    names = [f"motion {k} with a long name " + "and more " * 12 for k in range(2)]
    draw_strip(dict.fromkeys(names, motion), tmp_path / "a.png", num_poses=16, title="A title " * 40)
    figure = drawn[0]
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes._left_title.get_window_extent(renderer) for axes in figure.axes[-3:]]
    assert len(boxes) == 1 + 2 * 2 + 16 + 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= 1600 and box.y1 <= figure.bbox.height for box in boxes)


def test_the_height_stays_bounded(tmp_path: Path, drawn: list[Figure]) -> None:
    far = shifted(walk(), 300.0, 0.0, 50.0)
    draw_strip({"elsewhere": as_sticks(far), "here": as_sticks(walk(frames=1))}, tmp_path / "a.png", num_poses=1)
    assert drawn[0].bbox.height < 1600


def test_joint_errors_are_the_metric_and_match_frames_by_time() -> None:
    truth = walk(frames=31)
    faster = walk(frames=61, fps=60.0)
    errors = joint_errors(faster, truth, 0.0, 1.0)
    np.testing.assert_allclose(errors[:, 0], truth.timestamps, atol=1e-9)
    np.testing.assert_allclose(errors[:, 1], 0.0, atol=1e-3)
    bent = replace(truth, body_rotmats=walk(frames=31, fps=20.0).body_rotmats)
    expected = float(metrics.mpjpe(bent.joints[:, :22], truth.joints[:, :22]))
    assert expected > 5
    assert joint_errors(bent, truth, 0.0, 1.0)[:, 1].mean() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("heading", [0.0, 2.0, -2.5])
def test_walking_direction(heading: float) -> None:
    ahead = [np.cos(heading), np.sin(heading)]
    np.testing.assert_allclose(walking_direction(walk(heading)), ahead, atol=1e-4)
    # Walking backwards is still walking; standing, the face decides.
    np.testing.assert_allclose(walking_direction(walk(heading, facing=heading + np.pi)), ahead, atol=1e-4)
    np.testing.assert_allclose(walking_direction(walk(1.0, speed=0.1, facing=heading)), ahead, atol=1e-4)
    np.testing.assert_allclose(walking_direction(walk(heading, frames=1)), ahead, atol=1e-4)


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_strip({"walk": as_sticks(walk())}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    motion, path = walk(), tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"a\.gif.*\.png"):
        draw_strip({"walk": motion}, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="a file without suffix"):
        draw_strip({"walk": motion}, tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="make it first"):
        draw_strip({"walk": motion}, tmp_path / "no" / "a.png")
    with pytest.raises(ValueError, match="1 to 6 motions, and got 0"):
        draw_strip({}, path)
    with pytest.raises(ValueError, match="got 7"):
        draw_strip({str(k): motion for k in range(7)}, path)
    for num_poses in (0, 17):
        with pytest.raises(ValueError, match=f"is {num_poses}"):
            draw_strip({"walk": motion}, path, num_poses=num_poses)
    positions = motion.root_positions.clone()
    positions[7, 1] = float("nan")
    with pytest.raises(ValueError, match="'broken' has joints that are not finite in frame 7"):
        draw_strip({"walk": motion, "broken": replace(motion, root_positions=positions)}, path)
    later = replace(motion, timestamps=motion.timestamps + 100)
    with pytest.raises(ValueError, match="share no time"):
        draw_strip({"walk": motion, "later": later}, path)
    assert not path.exists()
