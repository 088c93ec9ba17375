"""Windows of rows on disk or in a stream: those of the same clips in memory, reproducible, and good to train on."""

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from motion_grpo.body import Skeleton
from motion_grpo.data import (
    Clip,
    HeadClip,
    MotionWindows,
    StreamedWindows,
    clip_to_row,
    collate_windows,
    is_mocap_pack,
    load_clips,
    load_motions,
    row_to_clip,
    row_to_trajectory,
)
from motion_grpo.data.batches import training_batch
from motion_grpo.data.loading import evenly
from motion_grpo.data.schema import rows_to_table
from motion_grpo.motion import Motion
from motion_grpo.training import DenoisingConfig, DenoisingTrainer
from tests.tiny import head_trajectory, moving_clip, moving_motion, tiny_denoiser, write_shard

LENGTHS = [40, 7, 33, 64, 20]


def clips() -> list[Clip]:
    """One stands on a raised floor, one has a shape."""
    made = [replace(moving_clip(n, seed=i), id=f"c{i}", source="ab"[i % 2]) for i, n in enumerate(LENGTHS)]
    raised = replace(made[0].motion, floor_height=0.3)
    shaped = replace(made[2].motion, betas=torch.linspace(-1, 1, 16))
    return [replace(made[0], motion=raised), made[1], replace(made[2], motion=shaped), *made[3:]]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two shards of small row groups."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [clip_to_row(clip) for clip in clips()]
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for shard, part in enumerate((rows[:2], rows[2:])):
            path = tmp_path / "data" / split / f"tiny-{shard:05d}.parquet"
            pq.write_table(rows_to_table(part), path, row_group_size=2)
    return tmp_path / "data"


def assert_same_windows(a: MotionWindows, b: MotionWindows) -> None:
    """The training batches made of both are the same."""
    assert len(a) == len(b) > 0
    batches = [
        training_batch(collate_windows(w.__getitems__(range(len(w)))), Skeleton.default(), include_hands=False)
        for w in (a, b)
    ]
    for x, y in ((batches[0].joints, batches[1].joints), (batches[0].rotmats, batches[1].rotmats)):
        torch.testing.assert_close(x, y, rtol=0, atol=5e-6)
    for x, y in zip(batches[0].head, batches[1].head, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=5e-6)
    assert torch.equal(batches[0].state.contacts, batches[1].state.contacts)
    assert torch.equal(batches[0].mask, batches[1].mask)


@pytest.mark.parametrize("random", [True, False])
def test_rows_give_the_windows_of_their_clips(folder, random):
    assert_same_windows(
        MotionWindows(load_motions(folder, "train"), 16, random=random, seed=3),
        MotionWindows(clips(), 16, random=random, seed=3),
    )


def test_feet_are_above_a_floor_at_zero(folder):
    """Whatever the floor of the recording."""
    windows = MotionWindows(load_motions(folder, "train").select([0]), 40, random=False)
    standing = clips()[0].motion
    torch.testing.assert_close(
        windows[0]["root_positions"][1:, 2], standing.root_positions[:, 2] - 0.3, rtol=0, atol=1e-6
    )


def test_rows_that_were_selected_or_shuffled(folder):
    rows = load_motions(folder, "train").select([4, 0, 2])
    assert_same_windows(
        MotionWindows(rows, 16, random=False), MotionWindows([clips()[i] for i in (4, 0, 2)], 16, random=False)
    )


def test_heads_without_a_body_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    heads = [HeadClip(f"head{n}", "glasses", head_trajectory(n)).to_row() for n in (33, 20)]
    bodies = [clip_to_row(clip) for clip in clips()[1:4]]
    (tmp_path / "train").mkdir()
    pq.write_table(rows_to_table([heads[0], *bodies, heads[1]]), tmp_path / "train" / "mixed-00000.parquet")
    rows = load_motions(tmp_path, "train")
    assert_same_windows(MotionWindows(rows, 16, random=False), MotionWindows(clips()[1:4], 16, random=False))
    assert [clip.id for clip in load_clips(tmp_path, "train")] == ["c1", "c2", "c3"]
    streamed = StreamedWindows(load_motions(tmp_path, "train", streaming=True), 16)
    assert len(list(streamed)) == sum(max(1, len(clip.motion) // 16) for clip in clips()[1:4])
    with pytest.raises(ValueError, match="Row head33 holds a head and no body"):
        row_to_clip(rows[0])
    torch.testing.assert_close(row_to_trajectory(rows[0]).p_world_cpf, head_trajectory(33).p_world_cpf)


def test_items_are_no_views_of_the_data(folder):
    """A user who writes to a window must not write to the file or to another window."""
    for windows in (MotionWindows(load_motions(folder, "train"), 16, seed=0), MotionWindows(clips(), 16, seed=0)):
        before = {name: value.clone() for name, value in windows[3].items()}
        for value in windows[3].values():
            value.zero_()
        assert all(torch.equal(value, before[name]) for name, value in windows[3].items())


class TestSeed:
    def test_place_depends_on_seed_epoch_and_index_alone(self, folder):
        rows = load_motions(folder, "train")

        def places(windows: MotionWindows, order=(3, 1, 0, 5)) -> dict[int, torch.Tensor]:
            return {i: windows[i]["root_positions"] for i in order}

        first = places(MotionWindows(rows, 16, seed=1))
        torch.manual_seed(99)
        again = places(MotionWindows(rows, 16, seed=1), order=(5, 0, 1, 3))
        assert all(torch.equal(first[i], again[i]) for i in first)
        windows = MotionWindows(rows, 16, seed=1)
        windows.set_epoch(1)
        assert not all(torch.equal(first[i], x) for i, x in places(windows).items())
        windows.set_epoch(0)
        assert all(torch.equal(first[i], x) for i, x in places(windows).items())
        assert not all(torch.equal(first[i], x) for i, x in places(MotionWindows(rows, 16, seed=2)).items())

    @pytest.mark.slow
    def test_workers_read_the_same_and_hear_of_the_epoch(self, folder):
        windows = MotionWindows(load_motions(folder, "train"), 16, seed=1)
        here = DataLoader(windows, 3, collate_fn=collate_windows)
        there = DataLoader(windows, 3, collate_fn=collate_windows, num_workers=2, persistent_workers=True)
        for epoch in range(2):
            windows.set_epoch(epoch)
            for a, b in zip(here, there, strict=True):
                assert a.keys() == b.keys()
                assert all(torch.equal(a[name], b[name]) for name in a)

    def test_pickled_as_paths(self, folder):
        windows = MotionWindows(load_motions(folder, "train"), 16, seed=1)
        windows.set_epoch(2)
        pickled = pickle.dumps(windows)
        again = pickle.loads(pickled)
        assert len(pickled) < 20_000 < sum(LENGTHS) * 131 * 4
        for i in range(len(windows)):
            assert all(torch.equal(again[i][name], value) for name, value in windows[i].items())


def test_default_collate_and_ours_agree(folder):
    windows = MotionWindows(load_motions(folder, "train"), 16, seed=1)
    ours, default = (next(iter(DataLoader(windows, 4, collate_fn=f))) for f in (collate_windows, None))
    assert ours.keys() == default.keys()
    assert all(torch.equal(ours[name], default[name]) for name in ours)
    single = collate_windows([windows[i] for i in range(4)])
    assert all(torch.equal(ours[name], single[name]) for name in ours)


def test_variable_length():
    windows = MotionWindows([moving_clip(60), moving_clip(12)], 20, min_length=8, seed=0)
    counts = []
    for epoch in range(60):
        windows.set_epoch(epoch)
        batch = collate_windows(windows.__getitems__(range(len(windows))))
        count = batch["mask"].sum(1)
        assert torch.equal(batch["mask"], torch.arange(20) < count[:, None])
        for i, n in enumerate(count.tolist()):
            assert batch["root_positions"][i, n + 1 :].eq(batch["root_positions"][i, n]).all()
        counts += [tuple(count.tolist())]
    assert {n for *long, _ in counts for n in long} == set(range(8, 21))
    assert {n for *_, n in counts} == set(range(8, 13))


class TestStream:
    def test_every_clip_gives_its_share(self, folder):
        rows = load_motions(folder, "train", streaming=True)
        for buffer in (1, 3, 100):
            windows = list(StreamedWindows(rows, 16, buffer_clips=buffer, seed=1))
            assert len(windows) == sum(max(1, n // 16) for n in LENGTHS)
            assert windows[0].keys() == MotionWindows(load_motions(folder, "train"), 16)[0].keys()

    def test_windows_lie_in_the_clips(self, folder):
        held = [m.motion.root_positions - torch.tensor([0, 0, m.motion.floor_height]) for m in clips()]
        for window in StreamedWindows(load_motions(folder, "train", streaming=True), 16, seed=4):
            kept = window["root_positions"][1:][window["mask"]]
            found = [
                start
                for positions in held
                for start in range(len(positions) - len(kept) + 1)
                if torch.allclose(positions[start : start + len(kept)], kept, rtol=0, atol=1e-5)
            ]
            assert len(found) == 1
            assert bool(window["has_previous"]) == (found[0] > 0)

    def test_seed_and_epoch(self, folder):
        def order(seed: int, epoch: int) -> torch.Tensor:
            windows = StreamedWindows(load_motions(folder, "train", streaming=True), 16, buffer_clips=3, seed=seed)
            windows.set_epoch(epoch)
            return torch.stack([window["root_positions"] for window in windows])

        assert torch.equal(order(0, 0), order(0, 0))
        assert not torch.equal(order(0, 0), order(0, 1))
        assert not torch.equal(order(0, 0), order(1, 0))

    @pytest.mark.slow
    def test_workers_share_the_shards(self, folder):
        windows = StreamedWindows(load_motions(folder, "train", streaming=True), 16)
        batches = DataLoader(windows, 2, num_workers=2, collate_fn=collate_windows)
        assert sum(len(batch["mask"]) for batch in batches) == sum(max(1, n // 16) for n in LENGTHS)

    def test_no_buffer(self, folder):
        with pytest.raises(ValueError, match="buffer_clips is 0"):
            StreamedWindows(load_motions(folder, "train", streaming=True), buffer_clips=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_trainer_reads_rows(folder, tmp_path, streaming):
    rows = load_motions(folder, "train", streaming=streaming)
    windows = StreamedWindows(rows, 16) if streaming else MotionWindows(rows, 16, seed=0)
    args = DenoisingConfig(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=4, max_steps=5, window=16, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = DenoisingTrainer(tiny_denoiser(normalize_cond=True), args, windows)
    trainer.fit_condition_statistics()
    trainer.train()
    assert trainer.state.global_step == 5
    assert torch.isfinite(torch.tensor(trainer.state.log_history[-1]["train_loss"]))
    epoch = int(rows.epoch) if streaming else int(windows._epoch)
    assert epoch == (5 - 1) // 3  # 9 windows, 4 a batch, 3 batches an epoch


class TestLoading:
    def test_sources(self, folder):
        assert load_motions(folder, "train", sources=["b"])["id"][:] == ["c1", "c3"]
        streamed = load_motions(folder, "train", sources=["b"], streaming=True)
        assert [row["id"] for row in streamed] == ["c1", "c3"]
        assert len(list(StreamedWindows(streamed, 16))) == 1 + 4
        with pytest.raises(ValueError, match="has no clip of cmu"):
            load_motions(folder, "train", sources=["cmu"])

    def test_clips_evenly_spread(self, folder):
        assert [clip.id for clip in load_clips(folder, "val", limit=2)] == ["c0", "c2"]
        assert [clip.id for clip in load_clips(folder, "val", limit=4)] == ["c0", "c1", "c2", "c3"]
        assert [clip.id for clip in load_clips(folder, "val", limit=9)] == ["c0", "c1", "c2", "c3", "c4"]
        assert load_clips(folder, "val", limit=0) == []
        assert [clip.id for clip in load_clips(folder, "val")] == ["c0", "c1", "c2", "c3", "c4"]

    def test_a_limit_of_a_pack_reaches_its_end(self, tmp_path):
        write_shard(tmp_path, "tiny", "val", [moving_motion(2)] * 19)
        chosen = [int(clip.id.split("/")[1]) for clip in load_clips(tmp_path, "val", limit=10)]
        assert chosen == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]

    @given(st.integers(0, 2000), st.integers(1, 2000))
    def test_evenly_is_even(self, count, limit):
        places = evenly(count, limit)
        assert len(places) == min(count, limit)
        gaps = [b - a for a, b in itertools.pairwise([*places, count])]
        assert not gaps or (places[0] == 0 and max(gaps) - min(gaps) <= 1)

    def test_pack_or_data_set(self, folder, tmp_path):
        write_shard(tmp_path, "tiny", "val", [moving_motion(9)])
        assert is_mocap_pack(tmp_path)
        assert not is_mocap_pack(folder)
        assert [clip.id for clip in load_clips(tmp_path, "val")] == ["tiny/0"]

    def test_no_such_split(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no test/\*.parquet"):
            load_motions(folder, "test")

    def test_other_columns(self, tmp_path, monkeypatch):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "data" / "train").mkdir(parents=True)
        datasets.Dataset.from_dict({"id": ["a"]}).to_parquet(str(tmp_path / "data" / "train" / "0.parquet"))
        with pytest.raises(ValueError, match=r"is no motion data set.*T_world_cpf, betas"):
            load_motions(tmp_path / "data", "train")


class TestErrors:
    def rows(self, clip: Clip, **changes) -> datasets.Dataset:
        return datasets.Dataset(rows_to_table([clip_to_row(clip) | changes]))

    def test_frame_rate(self):
        with pytest.raises(ValueError, match="Clip clip0 is at 60 fps; training needs 30"):
            MotionWindows(self.rows(Clip("clip0", "s", fast())))

    def test_another_body(self):
        with pytest.raises(ValueError, match="body SMPLH_MALE, not mannequin-x-symmetric"):
            MotionWindows(self.rows(moving_clip(20), skeleton="SMPLH_MALE"))

    @pytest.mark.parametrize(("length", "shortest"), [(1, None), (10, 1), (10, 11)])
    def test_lengths(self, length, shortest):
        with pytest.raises(ValueError, match="2 <= min_length <= length"):
            MotionWindows([moving_clip(20)], length, min_length=shortest)


def fast() -> Motion:
    return moving_motion(20, fps=60.0)
