"""Motions of other systems, read from files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motion_grpo.evaluation import (
    ClipWindow,
    RecordedMotions,
    clip_name,
    score,
    windows_of,
)
from tests.evaluation.setup import raised
from tests.tiny import moving_clip


def test_recorded_motions_are_found_by_clip_id_in_any_folder(tmp_path: Path) -> None:
    clips = [replace(moving_clip(20, seed), id=f"cmu/{seed}") for seed in (1, 11)]
    for folder in ("b", "a/deep"):
        for clip in clips:
            path = tmp_path / folder / f"{clip.id}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            clip.motion.save(path)
    system = RecordedMotions(tmp_path, clips)
    for clip in clips:
        assert score(system(clip), clip)["mpjpe"] == pytest.approx([0.0, 0.0], abs=0.01)


def test_missing_or_unfit_motion_files_are_named(tmp_path: Path) -> None:
    clips = [moving_clip(20, seed) for seed in range(3)]
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        RecordedMotions(tmp_path / "nowhere", clips)
    clips[0].motion.save(tmp_path / "clip0.npz")
    with pytest.raises(FileNotFoundError, match=r"no motion file for clip clip1 \(and for 1 other"):
        RecordedMotions(tmp_path, clips)
    moving_clip(19, 1).motion.save(tmp_path / "clip1.npz")
    with pytest.raises(ValueError, match=r"clip1\.npz has 19 frames at 30 fps; clip clip1 has 20 frames at 30 fps"):
        RecordedMotions(tmp_path, clips[:2])(clips[1])
    (tmp_path / "more").mkdir()
    clips[0].motion.save(tmp_path / "more" / "clip0.npz")
    with pytest.raises(ValueError, match="1 motion files for clip clip1 and 2 for clip clip0"):
        RecordedMotions(tmp_path, clips[:2])


def test_files_are_told_apart_by_source_and_by_their_longest_name(tmp_path: Path) -> None:
    clips = [
        replace(moving_clip(20, 1), id="walk", source="a"),
        replace(moving_clip(20, 2), id="walk", source="b"),
        replace(moving_clip(20, 3), id="1", source="a"),
        replace(moving_clip(20, 4), id="walk/1", source="a"),
        replace(moving_clip(20, 5), id="run", source="c"),
    ]
    for name, clip in zip(("a/walk", "b/walk", "a/1", "a/walk/1", "run"), clips, strict=True):
        for seed in (0, 1):
            path = tmp_path / f"seed{seed}" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            clip.motion.save(path)
    system = RecordedMotions(tmp_path, clips)
    for clip in clips:
        assert score(system(clip), clip)["mpjpe"] == pytest.approx([0.0, 0.0], abs=0.01), clip_name(clip)
    (tmp_path / "one").mkdir()
    clips[0].motion.save(tmp_path / "one" / "walk.npz")
    with pytest.raises(FileNotFoundError, match=r"no motion file for clip a/walk \(and for 1 other"):
        RecordedMotions(tmp_path / "one", clips[:2])  # whose walk is it?


def test_files_stand_on_their_own_floor_or_on_the_clips(tmp_path: Path) -> None:
    clip = raised(moving_clip(20), 0.6)
    for folder, motion in (("its_world", clip.motion), ("over_zero", moving_clip(20).motion)):
        (tmp_path / folder).mkdir()
        motion.save(tmp_path / folder / "clip0.npz")
    # Others write the clip's world, and know of no floor.
    (tmp_path / "theirs").mkdir()
    with np.load(tmp_path / "its_world" / "clip0.npz") as file:
        np.savez(tmp_path / "theirs" / "clip0.npz", **{name: file[name] for name in ("poses", "trans", "betas")})
    for folder in ("its_world", "over_zero", "theirs"):
        scores = score(RecordedMotions(tmp_path / folder, [clip])(clip), clip)
        assert scores["mpjpe"] == pytest.approx([0.0], abs=0.01), folder
        assert scores["ground_penetration"] == score([clip.motion], clip)["ground_penetration"], folder


def test_windows_have_files_of_their_own_or_are_cut_out(tmp_path: Path) -> None:
    clip = moving_clip(50)
    windows = windows_of(clip, 16)
    assert all(isinstance(window, ClipWindow) for window in windows)
    (tmp_path / "whole").mkdir()
    clip.motion.save(tmp_path / "whole" / "clip0.npz")
    for window in windows:
        path = tmp_path / "parts" / f"{clip_name(window)}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        window.motion.save(path)
    for folder in ("whole", "parts"):
        system = RecordedMotions(tmp_path / folder, windows)
        for window in windows:
            assert score(system(window), window)["mpjpe"] == pytest.approx([0.0], abs=0.01), (folder, window.id)
    moving_clip(40).motion.save(tmp_path / "whole" / "clip0.npz")
    with pytest.raises(ValueError, match=r"clip0\.npz has 40 frames; the window clip0/32 of .* ends at frame 48"):
        RecordedMotions(tmp_path / "whole", windows)(windows[2])
