"""The packed shards: a round trip through one written here, and the real ones."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import roma
import torch

from motion_grpo.body import Skeleton
from motion_grpo.data import MocapPackImporter, read_mocap_pack
from motion_grpo.data.mocap_pack import pack_shards
from motion_grpo.motion import Motion
from tests.conftest import shared_path
from tests.tiny import moving_motion, pack_row, write_shard

# Clips and frames of the smaller shards, from the table in the pack's README.
COUNTS = {
    ("bandai1", "id_test"): (7, 1351),
    ("bandai1", "test"): (37, 6731),
    ("cmu", "id_test"): (6, 2260),
    ("cmu", "test"): (20, 4162),
    ("cmu", "val"): (4, 2507),
}


def bent_knees(motion: Motion) -> Motion:
    """Knees bent by a radian, or legs of another length could not reach."""
    body = motion.body_rotmats.clone()
    body[:, [3, 4]] = roma.rotvec_to_rotmat(torch.tensor([1.0, 0.0, 0.0]))
    return replace(motion, body_rotmats=body)


LEGS, HIPS, FEET = [0, 1, 3, 4, 6, 7], [1, 2], [7, 8, 10, 11]


def test_round_trip(tmp_path):
    """Up to the format's resolution: 1e-4 rad and 1e-5 m. Hips and ankles stay where mannequin-x has them."""
    motions = [bent_knees(moving_motion(40)), bent_knees(moving_motion(7, seed=2))]
    write_shard(tmp_path, "tiny", "train", motions)
    clips = list(read_mocap_pack(tmp_path, "train"))
    assert [clip.id for clip in clips] == ["tiny/0", "tiny/1"]
    assert {clip.source for clip in clips} == {"tiny"}
    others = [joint for joint in range(21) if joint not in LEGS]
    for clip, motion in zip(clips, motions, strict=True):
        assert clip.motion.body is Skeleton.default()

        def close(name, ours=clip.motion, given=motion):
            return (getattr(ours, name), getattr(given, name))

        torch.testing.assert_close(*close("root_rotmats"), rtol=0, atol=2e-4)
        body, given = close("body_rotmats")
        torch.testing.assert_close(body[:, others], given[:, others], rtol=0, atol=2e-4)
        hips = [m.joints[:, HIPS].mean(1) for m in (clip.motion, replace(motion, skeleton=Skeleton.mannequin_x()))]
        torch.testing.assert_close(*hips, rtol=0, atol=1e-5)
        torch.testing.assert_close(*close("betas"))
        torch.testing.assert_close(*close("timestamps"))
        assert clip.motion.hand_rotmats is None


def test_planted_feet_are_where_the_pack_has_them(tmp_path):
    """The pack's body is not symmetric; the default body's bent legs reach the same places."""
    motion = replace(bent_knees(moving_motion(40)), skeleton=Skeleton.mannequin_x())
    write_shard(tmp_path, "tiny", "train", [motion])
    (clip,) = read_mocap_pack(tmp_path, "train")
    moved = (clip.motion.joints - motion.joints)[:, FEET].norm(dim=-1)
    unchanged = replace(motion, skeleton=None)
    assert moved[:, :2].max() < 1e-3
    assert moved[:, 2:].max() < 7e-3  # the feet's own length
    assert (clip.motion.joints - motion.joints)[:, [10, 11], 2].abs().max() < 3e-3
    assert (unchanged.joints - motion.joints)[:, FEET].norm(dim=-1).max() > 8e-3  # what it would be


def test_differences_wrap_around(tmp_path):
    """A root turned about z by more than 3.1 rad jumps from +pi to -pi, which int16 differences cannot hold."""
    motion = moving_motion(60, seed=3)  # starts at a heading of 3 rad and turns on
    write_shard(tmp_path, "tiny", "val", [motion])
    row = pack_row(motion, "", "")
    steps = torch.frombuffer(bytearray(row["poses_i16"]), dtype=torch.int16).reshape(66, 60).int()
    assert (steps.cumsum(1).abs() > 2**15).any()  # without the wrap-around it would be wrong
    (clip,) = read_mocap_pack(tmp_path, "val")
    torch.testing.assert_close(clip.motion.root_rotmats, motion.root_rotmats, rtol=0, atol=2e-4)


def test_splits_and_sources_are_told_apart(tmp_path):
    """id_test also ends in _test."""
    for number, (source, split) in enumerate([("a", "test"), ("a", "id_test"), ("b", "test"), ("a", "train")]):
        write_shard(tmp_path, source, split, [moving_motion(5, seed=number)] * (number + 1))

    def count(split, sources=None):
        return [c.source for c in read_mocap_pack(tmp_path, split, sources)]

    assert count("test") == ["a"] + ["b"] * 3
    assert count("id_test") == ["a"] * 2
    assert count("train") == ["a"] * 4
    assert count("test", ["b"]) == ["b"] * 3
    with pytest.raises(FileNotFoundError, match=r"no \*_val.parquet\."):
        count("val")
    with pytest.raises(FileNotFoundError, match=r"no \*_train.parquet of \['b'\]"):
        count("train", ["b"])


def test_what_an_unpacker_leaves_beside_a_shard_is_no_shard(tmp_path):
    shard = write_shard(tmp_path, "a", "val", [moving_motion(5)])
    (tmp_path / f"._{shard.name}").write_bytes(b"\x00\x05\x16\x07 resource fork")
    assert pack_shards(tmp_path, "val") == [shard]
    assert [clip.id for clip in read_mocap_pack(tmp_path, "val")] == ["a/0"]
    assert [job.path for job in MocapPackImporter((tmp_path,)).jobs()] == [shard]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_mocap_pack(tmp_path / "nowhere", "train"))


def test_another_parquet_file_is_named_with_what_it_lacks(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a"], "fps": [30]}), tmp_path / "x_train.parquet")
    with pytest.raises(
        ValueError, match=r"x_train.parquet is no shard.*betas, num_frames, poses_i16, source, trans_i32"
    ):
        list(read_mocap_pack(tmp_path, "train"))


@pytest.mark.parametrize(("source", "split"), COUNTS)
def test_real_shards_hold_what_their_readme_says(source, split):
    clips = list(read_mocap_pack(shared_path("mocap"), split, [source]))
    assert (len(clips), sum(len(clip.motion) for clip in clips)) == COUNTS[source, split]
    assert {clip.source for clip in clips} == {source}
    assert len({clip.id for clip in clips}) == len(clips)
    assert all(clip.motion.fps == pytest.approx(30) for clip in clips)


def test_real_bodies_stand_on_the_floor():
    """A flat foot has its toe base at 1 cm; the 5th percentile of the lower foot is put there."""
    clips = list(read_mocap_pack(shared_path("mocap"), "id_test", ["bandai1"]))
    for clip in clips:
        joints = clip.motion.joints
        lower_toe = joints[:, [10, 11], 2].amin(1)
        assert abs(float(lower_toe.quantile(0.2)) - 0.01) < 0.02, clip.id
        assert float(lower_toe.min()) > -0.03
        assert 1.2 < float(joints[:, 15, 2].median()) < 1.5  # actors of 1.61 m
        R = clip.motion.body_rotmats
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0, atol=1e-5)
    planted = torch.cat([clip.motion.contacts[:, [9, 10]].amax(1) for clip in clips])
    assert 0.3 < float(planted.mean()) < 1.0
