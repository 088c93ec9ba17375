"""The runner: same shards whatever the processes, kills, bad files and full disks cost nothing that was finished."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch

from motion_grpo.data import (
    ImportReport,
    MocapPackImporter,
    load_clips,
    read_mocap_pack,
    run_import,
)
from tests.conftest import shared_path
from tests.data.text_importer import TextImporter
from tests.tiny import moving_motion, write_shard


def write_texts(folder: Path, **splits: list[str]) -> TextImporter:
    for split, texts in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(texts):
            (folder / split / f"{number:02d}.txt").write_text(text)
    return TextImporter(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(importer, output: Path, **options) -> ImportReport:
    return run_import(importer, output, progress=False, **{"clips_per_shard": 2} | options)


MIXED = {
    "train": ["frames 5", "skip too short", "broken half a file", "two 8", "nan 6"],
    "val": ["one frame", "frames 9", "skip too short"],
}


def test_report_counts_what_was_kept_and_dropped(tmp_path):
    report = run(write_texts(tmp_path / "in", **MIXED), tmp_path / "out")
    assert (report.clips, report.frames) == (4, 5 + 8 + 8 + 9)
    assert report.hours == pytest.approx(30 / 30 / 3600)
    assert [(d.id, d.broken) for d in report.dropped] == [
        ("01", False), ("02", True), ("04", True), ("00", True), ("02", False),
    ]  # fmt: skip
    assert report.dropped[1].reason == "EOFError: half a file"
    assert report.dropped[1].path == str(tmp_path / "in" / "train" / "02.txt")
    assert "frame 2" in report.dropped[2].reason
    assert "has 1 frame;" in report.dropped[3].reason
    assert report.exit_code == 1
    assert "kept 4 clips" in str(report)
    assert "2  too short" in str(report)
    stored = json.loads((tmp_path / "out" / "texts_report.json").read_text())
    assert stored["clips"] == 4
    assert len(stored["dropped"]) == 5


def test_exit_code():
    assert ImportReport("a", clips=1).exit_code == 0
    assert ImportReport("a").exit_code == 1


def test_what_is_left_out_on_purpose_is_no_failure(tmp_path):
    importer = write_texts(tmp_path / "in", train=["frames 5", "skip on the skip list"])
    assert run(importer, tmp_path / "out", strict=True).exit_code == 0


def test_output_loads_as_splits(tmp_path):
    run(write_texts(tmp_path / "in", **MIXED), tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["id"][:] == ["00", "03", "03+1"]
    assert loaded["val"]["id"][:] == ["01"]
    assert set(loaded["val"]["split"]) == {"val"}
    assert set(loaded["val"]["subject"]) == {"somebody"}
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_two_importers_share_a_folder(tmp_path):
    importer = write_texts(tmp_path / "in", train=["frames 5"])
    run(importer, tmp_path / "out")
    other = write_texts(tmp_path / "more", train=["frames 6"], test=["frames 7"])
    run(replace(other, name="others"), tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["train"]["num_frames"]) == [5, 6]
    assert loaded["test"]["num_frames"][:] == [7]


@pytest.mark.slow
def test_processes_write_the_same_files_and_may_be_killed(tmp_path):
    report = "texts_report.json"
    importer = write_texts(tmp_path / "in", **MIXED | {"zoo": ["frames 6", "frames 7", "frames 8"]})
    one = run(importer, tmp_path / "one")
    victim = tmp_path / "in" / "zoo" / "02.txt"
    victim.write_text(f"killed {tmp_path / 'two' / '.import' / 'train' / 'texts-00000.json'}")
    with pytest.raises(ChildProcessError, match=r"was killed.*Finished shards are kept"):
        run(importer, tmp_path / "two", num_proc=2)
    assert not (tmp_path / "two" / "zoo" / "texts-00001.parquet").exists()
    victim.write_text("frames 8")
    two = run(importer, tmp_path / "two")
    assert two.shards_resumed >= 1
    assert replace(two, shards_resumed=0) == one
    # The report tells how many shards were there already; all else is the same to the byte.
    assert files(tmp_path / "one") == files(tmp_path / "two") | {report: files(tmp_path / "one")[report]}


class TestResume:
    def test_finished_shards_are_kept(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["frames 5", "frames 6", "frames 7", "full"])
        with pytest.raises(OSError, match=r"disk of .* is full. 1 of 2 shards are finished and kept") as error:
            run(importer, tmp_path / "out")
        assert error.value.errno == errno.ENOSPC
        kept = files(tmp_path / "out")
        assert "train/texts-00000.parquet" in kept
        assert "train/texts-00001.parquet" not in kept
        written = (tmp_path / "out" / "train" / "texts-00000.parquet").stat().st_mtime_ns
        (tmp_path / "in" / "train" / "03.txt").write_text("frames 8")
        report = run(importer, tmp_path / "out")
        assert (report.clips, report.frames, report.shards_resumed) == (4, 26, 1)
        assert (tmp_path / "out" / "train" / "texts-00000.parquet").stat().st_mtime_ns == written
        assert replace(report, shards_resumed=0) == run(importer, tmp_path / "fresh")

    def test_disk_fills_up_while_a_shard_is_written(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["frames 5"])
        (tmp_path / "out" / "train").mkdir(parents=True)
        # The name under which the shard is written until it is complete; every write to this device fails.
        (tmp_path / "out" / "train" / ".texts-00000.parquet.tmp").symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"is full\. 0 of 1 shards"):
            run(importer, tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*.parquet*"))
        assert run(importer, tmp_path / "out").clips == 1

    def test_half_written_shard_is_done_again(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["frames 5", "frames 6", "frames 7"])
        run(importer, tmp_path / "out")
        whole = files(tmp_path / "out")
        (tmp_path / "out" / ".import" / "train" / "texts-00001.json").unlink()
        (tmp_path / "out" / "train" / "texts-00001.parquet").write_bytes(b"PAR1 and nothing")
        assert run(importer, tmp_path / "out").shards_resumed == 1
        assert files(tmp_path / "out").keys() == whole.keys()
        shard = "train/texts-00001.parquet"
        assert files(tmp_path / "out")[shard] == whole[shard]

    def test_shards_of_another_schema_are_refused(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["frames 5"])
        run(importer, tmp_path / "out")
        shard = tmp_path / "out" / "train" / "texts-00000.parquet"
        table = pq.read_table(shard).drop_columns("content")
        pq.write_table(table.replace_schema_metadata({"motion_grpo_schema": "1.0"}), shard)
        for other in (importer, replace(importer, name="others")):
            with pytest.raises(ValueError, match=r"holds shards of schema 1\.0.*choose another output"):
                run(other, tmp_path / "out")

    def test_another_import_is_refused(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["frames 5", "frames 6", "frames 7"])
        run(importer, tmp_path / "out")
        with pytest.raises(ValueError, match="imported with other options"):
            run(importer, tmp_path / "out", clips_per_shard=1)
        with pytest.raises(ValueError, match=r"shards that this import would not write \(train/texts-00001\)"):
            run(importer, tmp_path / "out", clips_per_shard=3)
        first = tmp_path / "in" / "train" / "00.txt"
        first.rename(first.with_name("09.txt"))
        with pytest.raises(ValueError, match="whose files have changed"):
            run(importer, tmp_path / "out")


class TestStrict:
    def test_stops_at_the_first_broken_file(self, tmp_path):
        importer = write_texts(tmp_path / "in", **MIXED)
        with pytest.raises(ValueError, match=r"train/02.txt: EOFError: half a file .strict"):
            run(importer, tmp_path / "out", strict=True)
        assert (tmp_path / "out" / "train" / "texts-00000.parquet").is_file()

    def test_a_clip_that_fails_the_check_counts(self, tmp_path):
        importer = write_texts(tmp_path / "in", train=["nan 5"])
        with pytest.raises(ValueError, match="not finite"):
            run(importer, tmp_path / "out", strict=True)


def test_memory_does_not_grow_with_the_shard(tmp_path, monkeypatch):
    """Rows are written whenever enough frames are pending, and not held until the shard ends."""
    monkeypatch.setattr("motion_grpo.data.importers.runner._FRAMES_PER_ROW_GROUP", 20)
    run(write_texts(tmp_path / "in", train=["frames 9"] * 8), tmp_path / "out", clips_per_shard=8)
    shard = pq.ParquetFile(tmp_path / "out" / "train" / "texts-00000.parquet")
    assert [shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups)] == [3, 3, 2]


def test_no_shard_size(tmp_path):
    with pytest.raises(ValueError, match="clips_per_shard is 0"):
        run(write_texts(tmp_path / "in", train=["frames 5"]), tmp_path / "out", clips_per_shard=0)


class TestMocapPack:
    def test_written_pack(self, tmp_path):
        write_shard(tmp_path, "tiny", "train", [moving_motion(40), moving_motion(7, seed=2)])
        write_shard(tmp_path, "tiny", "id_test", [moving_motion(9)])
        assert run(MocapPackImporter((tmp_path,)), tmp_path / "out").clips == 3
        clips = load_clips(tmp_path / "out", "train")
        for clip, expected in zip(clips, read_mocap_pack(tmp_path, "train"), strict=True):
            assert (clip.id, clip.split) == (expected.id, "train")
            torch.testing.assert_close(clip.motion.joints, expected.motion.joints, rtol=0, atol=5e-6)
        assert [clip.id for clip in load_clips(tmp_path / "out", "train", limit=1)] == ["tiny/0"]

    def test_more_clips_than_a_job(self, tmp_path):
        write_shard(tmp_path, "tiny", "val", [moving_motion(3, seed=i) for i in range(70)])
        importer = MocapPackImporter((tmp_path,), ("val",))
        assert [job.id for job in importer.jobs()] == ["tiny_val/0", "tiny_val/64"]
        assert [len(importer.convert(job)) for job in importer.jobs()] == [64, 6]

    def test_two_packs_become_one_without_what_is_excluded(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        write_shard(tmp_path / "a", "tiny", "train", [moving_motion(5, seed=i) for i in range(3)])
        write_shard(tmp_path / "b", "other", "train", [moving_motion(6)])
        packs = (tmp_path / "a", tmp_path / "b")
        importer = MocapPackImporter(packs, exclude=("tiny/[02]", "nobody/*"))
        assert run(importer, tmp_path / "out").clips == 2
        assert [clip.id for clip in load_clips(tmp_path / "out", "train")] == ["tiny/1", "other/0"]
        with pytest.raises(ValueError, match=r"a/tiny_train.parquet and .*have the same name; give one of them"):
            MocapPackImporter((*packs, tmp_path / "a")).jobs()

    def test_no_shards(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no shard of train"):
            MocapPackImporter((tmp_path,), ("train",)).jobs()

    def test_real_clips(self, tmp_path):
        importer = MocapPackImporter((shared_path("mocap"),), ("val", "id_test"), ("cmu",))
        report = run(importer, tmp_path / "out")
        assert report.exit_code == 0, str(report)
        assert report.clips == 10  # 4 and 6, by the pack's README
        original = {clip.id: clip for clip in read_mocap_pack(importer.folders[0], "val", ["cmu"])}
        for clip in load_clips(tmp_path / "out", "val"):
            expected = original.pop(clip.id)
            assert clip.subject == expected.subject != ""
            assert clip.license == expected.license != ""
            torch.testing.assert_close(clip.motion.joints, expected.motion.joints, rtol=0, atol=5e-6)
            assert torch.equal(clip.motion.contacts, expected.motion.contacts)
        assert not original
