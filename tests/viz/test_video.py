"""Decoded frames show the body move over a floor that stays."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from motion_grpo.motion import Motion
from motion_grpo.viz import video
from tests.tiny import moving_motion

EXAMPLE = Path(__file__).parents[2] / "examples" / "walk_turns.npz"


def decoded(path: Path) -> tuple[dict, np.ndarray]:
    frames = imageio_ffmpeg.read_frames(str(path))
    facts = next(frames)
    width, height = facts["size"]
    return facts, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]).astype(int)


def test_mp4_shows_the_body_move(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(video, "_VIDEO_SIZE", (180, 320))
    monkeypatch.setattr(video, "VIDEO_FPS", 5)
    motion = moving_motion(31)
    facts, frames = decoded(motion.save(tmp_path / "walk.mp4"))
    assert facts["codec"] == "h264"
    assert facts["size"] == (320, 180)
    assert len(frames) == 6
    moved = np.abs(frames[3] - frames[0]).sum(-1) > 60
    assert 0.002 < moved.mean() < 0.3  # the body, and not the whole picture
    dark = frames[0].sum(-1) < 500  # body and shadow against paper and floor
    rows, columns = np.nonzero(dark)
    assert rows.max() - rows.min() == pytest.approx(180 * 1.7 / 2.5, rel=0.15)  # a standing adult
    assert columns.mean() == pytest.approx(160, abs=25)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]


def test_gif_repeats_and_has_a_color_for_the_body(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(video, "_GIF_SIZE", (120, 180))
    path = moving_motion(16).save(tmp_path / "walk.gif")
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
        assert gif.n_frames == 7
        assert gif.info["duration"] == 80
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(6)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - first).max() > 50
    reddish = (first[..., 0] - first[..., 2] > 60).mean()
    assert 0.02 < reddish < 0.4


def test_the_camera_follows_who_walks_and_the_floor_stays_in_the_world() -> None:
    motion = Motion.load(EXAMPLE)
    centers = []
    for picture in video.pictures_of([motion], (120, 240), 0.5):
        color = picture.astype(int)
        centers.append(np.nonzero(color[..., 0] - color[..., 2] > 60)[1].mean())
    assert len(centers) == 6
    assert np.abs(np.array(centers) - 120).max() < 30
    assert float((motion.root_positions[-1] - motion.root_positions[0]).norm()) > 0


def test_motions_over_each_other_have_colors_of_their_own() -> None:
    near = moving_motion(2)
    (picture, *_) = video.pictures_of([near, moving_motion(2, seed=3)], (120, 180), 30.0)
    color = picture.astype(int)
    assert ((color[..., 0] - color[..., 2]) > 60).mean() > 0.01
    assert ((color[..., 2] - color[..., 0]) > 60).mean() > 0.0005


def test_a_film_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    def broken(*_args, **_options):
        yield np.zeros((180, 320, 3), np.uint8)
        raise RuntimeError("no more")

    monkeypatch.setattr(video, "_VIDEO_SIZE", (180, 320))
    monkeypatch.setattr(video, "pictures_of", broken)
    with pytest.raises(RuntimeError, match="no more"):
        moving_motion(5).save(tmp_path / "walk.mp4")
    assert not list(tmp_path.iterdir())
