"""Windows lie inside their clips, tile them, and say what is padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.data import Clip, MotionWindows, balancing_weights
from motion_grpo.motion import Motion


def numbered_clip(frames: int, number: int) -> Clip:
    """Every frame knows its clip and its own number: x is 1000 times the clip's, y the frame's."""
    place = torch.stack([torch.full((frames,), 1000.0 * number), torch.arange(frames).float(), torch.ones(frames)], 1)
    R = torch.eye(3).repeat(frames, 1, 1)
    motion = Motion(
        root_rotmats=R,
        root_positions=place,
        body_rotmats=R[:, None].repeat(1, 21, 1, 1),
        betas=torch.full((16,), float(number)),
        contacts=(torch.arange(frames) % 2).float()[:, None].expand(-1, 21),
        timestamps=torch.arange(frames, dtype=torch.float64) / 30,
    )
    return Clip(f"c{number}", "test", motion)


def check(item: dict, lengths: list[int], length: int) -> tuple[int, int]:
    """Clip and first frame of an item, whose every entry is checked against what the clip holds there."""
    number = int(item["betas"][0])
    frames, kept = lengths[number], int(item["mask"].sum())
    assert item["rotmats"].shape == (length + 1, 22, 3, 3)
    assert item["mask"].shape == (length,)
    assert item["mask"].dtype == item["has_previous"].dtype == torch.bool
    assert item["mask"][:kept].all()
    assert kept >= 1
    assert item["root_positions"][:, 0].eq(1000.0 * number).all()
    place = item["root_positions"][:, 1]
    start = int(place[1])
    assert start + kept <= frames
    assert place[1 : kept + 1].tolist() == list(range(start, start + kept))
    assert place[kept + 1 :].eq(start + kept - 1).all()
    assert bool(item["has_previous"]) == (start > 0)
    assert int(place[0]) == max(start - 1, 0)
    assert torch.equal(item["contacts"][:, 3], place % 2)
    return number, start


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(2, 30))
def test_random_windows_lie_inside_their_clips(lengths, length):
    windows = MotionWindows([numbered_clip(n, i) for i, n in enumerate(lengths)], length)
    assert len(windows) == sum(max(1, n // length) for n in lengths)
    for index in range(len(windows)):
        number, _ = check(item := windows[index], lengths, length)
        assert int(item["mask"].sum()) == min(length, lengths[number])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(2, 30))
def test_evaluation_windows_tile_their_clips(lengths, length):
    windows = MotionWindows([numbered_clip(n, i) for i, n in enumerate(lengths)], length, random=False)
    seen = []
    for index in range(len(windows)):
        number, start = check(item := windows[index], lengths, length)
        seen += [(number, frame) for frame in range(start, start + int(item["mask"].sum()))]
    assert seen == [(number, frame) for number, n in enumerate(lengths) for frame in range(n)]


def test_every_start_is_drawn():
    windows = MotionWindows([numbered_clip(9, 0)], 5)
    starts = torch.tensor([check(windows[0], [9], 5)[1] for _ in range(400)])
    counts = starts.bincount()
    assert len(counts) == 5
    assert counts.min() > 40  # 80 expected of each; 5.0 sigma below


def test_whole_batches_are_the_same_windows():
    windows = MotionWindows([numbered_clip(40, 0), numbered_clip(7, 1)], 10, random=False)
    batch = next(iter(torch.utils.data.DataLoader(windows, batch_size=5)))
    for index in range(5):
        for name, value in windows[index].items():
            torch.testing.assert_close(batch[name][index], value)


@pytest.mark.parametrize("random", [True, False])
def test_short_clip_by_hand(random):
    item = MotionWindows([numbered_clip(3, 0)], 5, random=random)[0]
    assert item["root_positions"][:, 1].tolist() == [0, 0, 1, 2, 2, 2]
    assert item["mask"].tolist() == [True, True, True, False, False]
    assert not item["has_previous"]


def test_later_window_by_hand():
    item = MotionWindows([numbered_clip(8, 0)], 5, random=False)[1]
    assert item["root_positions"][:, 1].tolist() == [4, 5, 6, 7, 7, 7]
    assert item["mask"].tolist() == [True, True, True, False, False]
    assert item["has_previous"]


class TestWeights:
    def drawn(self, windows: MotionWindows) -> list[int]:
        return [int(windows[i]["betas"][0]) for i in range(len(windows))]

    def test_counts_follow_the_weights(self):
        clips = [numbered_clip(200, 0), numbered_clip(50, 1)]
        windows = MotionWindows(clips, 10, seed=0, weights=[1.0, 4.0])
        assert len(windows) == 25
        counts = torch.bincount(torch.tensor(self.drawn(windows)))
        assert abs(int(counts[0]) - 12.5) <= 1

    def test_equal_weights_change_nothing(self):
        clips = [numbered_clip(60, 0), numbered_clip(30, 1)]
        assert self.drawn(MotionWindows(clips, 10, seed=3, weights=[1.0, 1.0])) == self.drawn(
            MotionWindows(clips, 10, seed=3)
        )

    def test_draw_is_another_in_another_epoch_and_the_same_in_the_same(self):
        windows = MotionWindows(
            [numbered_clip(30, n) for n in range(20)], 20, seed=0, weights=[float(n) for n in range(1, 21)]
        )
        first = self.drawn(windows)
        windows.set_epoch(1)
        assert self.drawn(windows) != first
        windows.set_epoch(0)
        assert self.drawn(windows) == first

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": [1.0]}, "1 weights for 2 clips; give one a clip"),
            ({"weights": [1.0, 1.0], "seed": None}, "random windows with a seed"),
            ({"weights": [1.0, 1.0], "random": False}, "random windows with a seed"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(ValueError, match=message):
            MotionWindows([numbered_clip(30, 0), numbered_clip(30, 1)], 10, **{"seed": 0} | options)


class TestBalancingWeights:
    def test_by_hand(self):
        """Shares 8 and 2 of two people, 4, 4 and 2 of three activities."""
        frames, people, contents = [400, 400, 200], ["a", "a", "b"], ["walk", "run", "jump"]
        assert balancing_weights(frames, people, contents, person=0.0, content=0.0) == pytest.approx([1, 1, 1])
        by_person = balancing_weights(frames, people, contents, person=1.0, content=0.0)
        assert by_person == pytest.approx([0.625, 0.625, 2.5])
        # Person: (8 2)^-1/2 = (.354, .707); content: (4 4 2)^-1/2 = (.5, .5, .707); their products have the mean .2414.
        both = balancing_weights(frames, people, contents, person=0.5, content=0.5)
        assert both == pytest.approx([0.7322, 0.7322, 2.0711], abs=1e-3)

    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
    def test_mean_over_frames_is_one(self, frames, person, content):
        names = [str(i % 3) for i in range(len(frames))]
        weights = balancing_weights(frames, names, names[::-1], person=person, content=content)
        assert sum(w * n for w, n in zip(weights, frames, strict=True)) / sum(frames) == pytest.approx(1)
