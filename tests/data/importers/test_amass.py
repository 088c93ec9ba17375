"""AMASS's published layouts, written here with known contents, down to the ways in which its files differ and break."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import roma
import torch

from motion_grpo.body import Skeleton
from motion_grpo.body.betas import load_skeleton
from motion_grpo.data.clips import ClipError
from motion_grpo.data.importers.amass import SPLITS, AmassImporter
from motion_grpo.data.importers.base import Job
from motion_grpo.data.importers.runner import run_import
from motion_grpo.data.preprocessing import Recording
from motion_grpo.data.schema import row_to_clip
from tests.data.importers.recordings import kicking, standing

REST_PELVIS = np.array([-0.0018, -0.2233, 0.0282])


def smplh_file(recording: Recording, **changes: object) -> dict[str, object]:
    """The arrays of SMPL+H G, less those that None is given for."""
    frames = len(recording)
    poses = np.zeros((frames, 156))
    poses[:, :66] = recording.rotvecs[:, :22].reshape(frames, 66)
    arrays = {
        "trans": recording.root_positions - REST_PELVIS,
        "gender": np.array("male"),
        "mocap_framerate": np.array(recording.fps),
        "betas": np.linspace(-1, 2, 16),
        "dmpls": np.zeros((frames, 8)),
        "poses": poses,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def smplx_file(recording: Recording, **changes: object) -> dict[str, object]:
    """The arrays of SMPL-X N (``..._stageii.npz``): jaw and eyes before the hands, another name for the frame rate."""
    frames = len(recording)
    poses = np.zeros((frames, 165))
    poses[:, :66] = recording.rotvecs[:, :22].reshape(frames, 66)
    poses[:, 66:75] = 0.3 * np.sin(np.arange(frames))[:, None]
    arrays = {
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(recording.fps),
        "mocap_time_length": np.array(frames / recording.fps),
        "trans": recording.root_positions - Skeleton.default().J0[0].numpy(),
        "poses": poses,
        "betas": np.zeros(16),
        "num_betas": np.array(16),
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write(path: Path, arrays: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def only_clip(root: Path, arrays: dict[str, object], name: str = "CMU/01/01_01_poses.npz", **options: object):
    """What the importer makes of one file."""
    write(root / name, arrays)
    importer = AmassImporter(root, **options)
    (job,) = importer.jobs()
    (clip,) = importer.convert(job)
    return clip


def test_a_file_becomes_a_clip(tmp_path):
    clip = only_clip(tmp_path, smplh_file(standing(5.0, 120.0, toe_height=0.25)))

    assert (clip.id, clip.source, clip.subject, clip.split) == ("CMU/01/01_01", "amass-CMU", "CMU/01", "train")
    assert (len(clip.motion), clip.motion.fps) == (120, pytest.approx(30.0))
    assert float(clip.motion.joints[:, 10:12, 2].mean()) == pytest.approx(0.01, abs=1e-5)
    assert clip.motion.hand_rotmats is None
    assert not clip.motion.betas.any()
    assert "non-commercial" in clip.license


def test_both_names_of_the_frame_rate_and_any_gender_mean_the_same(tmp_path):
    recording = kicking(4.0, 100.0)
    variants = [
        {},
        {"mocap_framerate": None, "mocap_frame_rate": np.array(100.0)},
        {"mocap_framerate": np.array([100])},
        {"gender": np.array(b"female")},
        {"gender": np.array(["neutral"])},
        {"gender": np.array("male", dtype=object)},
        {"betas": np.zeros(10)},
        {"betas": None, "gender": None, "dmpls": None},
        {"poses": smplh_file(recording)["poses"].astype(np.float32)},
    ]
    motions = [only_clip(tmp_path, smplh_file(recording, **changes)).motion for changes in variants]

    for motion in motions[1:]:
        torch.testing.assert_close(motion.joints, motions[0].joints, atol=1e-5, rtol=0)


def test_smplx_files_keep_their_shape_on_the_default_body(tmp_path):
    recording = standing(5.0, 59.94)
    recording.root_positions[:, 0] = 1.0
    betas = np.linspace(1, -1, 16)
    rest_pelvis = Skeleton.default().rest_joints(torch.tensor([*betas[:10], *[0.0] * 6], dtype=torch.float32))[0]
    arrays = smplx_file(recording, betas=betas, trans=recording.root_positions - rest_pelvis.numpy())

    motion = only_clip(tmp_path, arrays, "KIT/3/turn_stageii.npz").motion

    torch.testing.assert_close(motion.betas[:10], torch.tensor(betas[:10], dtype=torch.float32))
    assert not motion.betas[10:].any()
    torch.testing.assert_close(motion.root_positions[:, 0], torch.ones(len(motion)))
    assert float(motion.joints[:, 10:12, 2].mean()) == pytest.approx(0.01, abs=1e-5)
    assert motion.hand_rotmats is None  # jaw and eyes move, and are no hands


def test_gendered_smplx_betas_are_no_neutral_ones(tmp_path):
    arrays = smplx_file(standing(5.0, 60.0), gender=np.array("male"), betas=np.ones(16))

    assert not only_clip(tmp_path, arrays).motion.betas.any()


@pytest.mark.parametrize(("layout", "first"), [(smplh_file, 66), (smplx_file, 75)])
def test_hands_are_kept_when_they_move(tmp_path, layout, first):
    recording = standing(5.0, 60.0)
    arrays = layout(recording)
    arrays["poses"][:, first:] = np.linspace(-0.5, 0.5, 90)
    assert only_clip(tmp_path, arrays).motion.hand_rotmats is None

    arrays["poses"][:, first + 89] += np.linspace(0, 1, 300)
    moving = only_clip(tmp_path, arrays).motion

    expected = roma.rotvec_to_rotmat(torch.tensor(arrays["poses"][30:270:2, first:]).float().unflatten(1, (30, 3)))
    torch.testing.assert_close(moving.hand_rotmats, expected, atol=1e-5, rtol=0)
    assert only_clip(tmp_path, arrays, hands=False).motion.hand_rotmats is None


def test_bodies_become_neutral_and_stay_where_they_are(tmp_path, body_models):
    folder, A, b = body_models
    recording = kicking(5.0, 120.0)
    betas = np.random.default_rng(0).normal(size=16)
    arrays = smplh_file(recording, betas=betas, gender=np.array(b"male"))

    motion = only_clip(tmp_path, arrays, body_models=folder).motion

    torch.testing.assert_close(motion.betas, torch.tensor(A @ betas + b).float(), atol=1e-3, rtol=0)
    # The male body is in the neutral one's shape space, so that SMPL's translation stays as well, but for the floor.
    moved = motion.trans - torch.tensor(arrays["trans"][60:540:4]).float()
    torch.testing.assert_close(moved[:, :2], torch.zeros(120, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[:, 2], moved[:1, 2].expand(120), atol=1e-5, rtol=0)
    neutral = load_skeleton(folder, "neutral")
    assert motion.skeleton is neutral


def test_smplx_on_licensed_bodies_has_the_neutral_smplh_shape_nearest_to_it(tmp_path, body_models):
    folder, *_ = body_models

    motion = only_clip(tmp_path, smplx_file(standing(5.0, 60.0)), body_models=folder).motion

    assert motion.skeleton is load_skeleton(folder, "neutral")
    assert motion.betas.any()


def test_the_paper_s_splits(tmp_path):
    for names in SPLITS.values():
        for name in names:
            write(tmp_path / name / "s" / "walk_poses.npz", {})

    splits = {job.id.split("/")[0]: job.split for job in AmassImporter(tmp_path).jobs()}

    assert splits == {name: split for split, names in SPLITS.items() for name in names}
    assert [len(names) for names in SPLITS.values()] == [13, 4, 2]


@pytest.mark.parametrize(
    ("folder", "name", "split"),
    [
        ("BMLrub", "BioMotionLab_NTroje", "train"),
        ("DFaust", "DFaust_67", "train"),
        ("DFaust67", "DFaust_67", "train"),
        ("EyesJapanDataset", "Eyes_Japan_Dataset", "train"),
        ("HDM05", "MPI_HDM05", "val"),
        ("MoSh", "MPI_mosh", "val"),
        ("PosePrior", "MPI_Limits", "train"),
        ("SSM", "SSM_synced", "test"),
        ("TCDHands", "TCD_handMocap", "train"),
        ("Transitions", "Transitions_mocap", "test"),
        ("smplh/CMU/CMU", "CMU", "train"),
    ],
)
def test_later_names_and_other_places_of_the_folders(tmp_path, folder, name, split):
    write(tmp_path / folder / "subject" / "walk_stageii.npz", {})

    (job,) = AmassImporter(tmp_path).jobs()

    assert (job.id, job.split, job.extra["subject"]) == (f"{name}/subject/walk", split, "subject")
    (same,) = AmassImporter(tmp_path / folder).jobs()
    assert (same.id, same.split) == (job.id, job.split)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BioMotionLab_NTroje/rub001/0001_treadmill_slow_poses.npz", "skip list"),
        ("BMLrub/rub014/0027_normal_walk2_stageii.npz", "skip list"),
        ("MPI_HDM05/dg/HDM_dg_07-01_03_120_poses.npz", "skip list"),
        ("GRAB/s1/cup_lift_stageii.npz", "GRAB is in none of the paper's splits"),
    ],
)
def test_clips_the_reference_leaves_out(tmp_path, name, reason):
    write(tmp_path / name, smplh_file(standing(5.0, 60.0)))
    write(tmp_path / "CMU" / "normal_treadmill_poses.npz", smplh_file(standing(5.0, 60.0)))
    importer = AmassImporter(tmp_path)
    jobs = {job.path.name: job for job in importer.jobs()}

    with pytest.raises(ClipError, match=reason):
        importer.convert(jobs[Path(name).name])
    assert len(importer.convert(jobs["normal_treadmill_poses.npz"])) == 1


def test_files_of_shapes_are_no_clips(tmp_path):
    shape = {"betas": np.zeros(16), "gender": np.array("female")}
    for name in ("CMU/01/shape.npz", "KIT/3/neutral_stagei.npz", "KIT/3/body.npz"):
        write(tmp_path / name, shape)
    importer = AmassImporter(tmp_path)

    (job,) = importer.jobs()

    with pytest.raises(ClipError, match="a shape without a motion"):
        importer.convert(job)


def test_wrong_frame_rates_of_the_first_release_are_put_right(tmp_path):
    recording = standing(5.0, 120.0)

    handball = only_clip(tmp_path / "a", smplh_file(recording), "BMLhandball/S01/Trial_poses.npz").motion
    synced = only_clip(tmp_path / "b", smplh_file(recording), "SSM_synced/20160930_50032/jump_poses.npz").motion

    assert len(handball) == 60
    assert len(synced) == pytest.approx(480 * 30 / 59, abs=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None, "betas": None}, "no poses"),
        ({"trans": None, "mocap_framerate": None}, "no trans, mocap_framerate"),
        ({"poses": np.zeros((600, 72))}, r"\(600, 72\)"),
        ({"trans": np.zeros((599, 3))}, r"\(599, 3\)"),
        ({"poses": np.zeros((600, 156), int)}, "int64"),
        ({"mocap_framerate": np.array(0.0)}, "mocap_framerate is 0.0"),
        ({"mocap_framerate": np.array(np.nan)}, "mocap_framerate is nan"),
        ({"mocap_framerate": np.array("120")}, "mocap_framerate is 120"),
        ({"trans": np.full((600, 3), np.nan)}, "600 frames .* not finite, frame 0 the first"),
        ({"poses": np.zeros((600, 156), object)}, "poses"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        only_clip(tmp_path, smplh_file(standing(5.0, 120.0), **changes))
    assert not isinstance(error.value, ClipError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gender": np.array("robot")}, "gender is 'robot'"),
        ({"gender": None}, "no readable gender"),
        ({"gender": np.array("male", dtype=object)}, "no readable gender"),
        ({"betas": np.zeros(3)}, r"betas has shape \(3,\)"),
        ({"betas": None}, "no readable betas"),
    ],
)
def test_a_shape_that_cannot_be_read_matters_where_it_is_used(tmp_path, body_models, changes, message):
    arrays = smplh_file(standing(5.0, 120.0), **changes)

    assert len(only_clip(tmp_path, arrays).motion) == 120
    with pytest.raises(ValueError, match=message):
        only_clip(tmp_path, arrays, body_models=body_models[0])


@pytest.mark.parametrize("seconds", [1 / 120, 1.0])
def test_clips_of_a_frame_or_a_second_are_left_out(tmp_path, seconds):
    with pytest.raises(ClipError, match="shorter than 1 s"):
        only_clip(tmp_path, smplh_file(standing(seconds, 120.0)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", pickle.dumps({"poses": 1}), b"text"])
def test_files_that_are_no_npz(tmp_path, content):
    path = tmp_path / "CMU" / "x_poses.npz"
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(ValueError, match="not a readable npz"):
        AmassImporter(tmp_path).convert(Job("x", path, "train", {"subset": "CMU", "subject": "", "skip": ""}))


def test_a_truncated_npz(tmp_path):
    path = write(tmp_path / "CMU" / "x_poses.npz", smplh_file(standing(5.0, 120.0)))
    path.write_bytes(path.read_bytes()[:100_000])
    importer = AmassImporter(tmp_path)

    with pytest.raises(ValueError, match="not a readable npz"):
        importer.convert(importer.jobs()[0])


def test_folders_that_are_not_amass(tmp_path, body_models):
    with pytest.raises(FileNotFoundError, match="no folder"):
        AmassImporter(tmp_path / "missing").jobs()
    with pytest.raises(ValueError, match="no motion file"):
        AmassImporter(tmp_path).jobs()
    write(tmp_path / "walks" / "x_poses.npz", {})
    with pytest.raises(ValueError, match="no motion file"):
        AmassImporter(tmp_path).jobs()
    with pytest.raises(FileNotFoundError, match="no male SMPL-H body"):
        AmassImporter(tmp_path, body_models=tmp_path).jobs()


def test_two_releases_in_one_folder_are_told_apart(tmp_path):
    write(tmp_path / "smplh" / "CMU" / "01" / "01_01_poses.npz", {})
    write(tmp_path / "smplx" / "CMU" / "01" / "01_01_stageii.npz", {})

    with pytest.raises(ValueError, match="the same clip"):
        AmassImporter(tmp_path).jobs()


def test_a_whole_folder_through_the_runner(tmp_path):
    good = smplh_file(kicking(5.0, 120.0))
    write(tmp_path / "amass" / "CMU" / "01" / "01_01_poses.npz", good)
    write(tmp_path / "amass" / "CMU" / "01" / "01_02_poses.npz", good | {"trans": np.zeros((3, 3))})
    write(tmp_path / "amass" / "CMU" / "01" / "01_03_poses.npz", smplh_file(standing(1.0, 120.0)))
    write(tmp_path / "amass" / "Transitions" / "mazen" / "turn_stageii.npz", smplx_file(kicking(5.0, 60.0)))
    importer = AmassImporter(tmp_path / "amass")

    report = run_import(importer, tmp_path / "out", progress=False)

    assert (report.clips, report.exit_code) == (2, 1)
    assert {(dropped.id, dropped.broken) for dropped in report.dropped} == {
        ("CMU/01/01_02", True),
        ("CMU/01/01_03", False),
    }
    (row,) = pq.read_table(tmp_path / "out" / "train" / "amass-00000.parquet").to_pylist()
    stored, expected = row_to_clip(row).motion, importer.convert(importer.jobs()[0])[0].motion
    torch.testing.assert_close(stored.joints, expected.joints, atol=1e-4, rtol=0)
    torch.testing.assert_close(stored.contacts, expected.contacts)
    assert (tmp_path / "out" / "test" / "amass-00000.parquet").is_file()


@pytest.mark.parametrize("folder", ["SSM/20161014_50033", "SSM_synced/20160930_50032", "SSM/SSM/20160930_50032"])
def test_ssm_of_both_releases_runs_at_its_true_rate(tmp_path, folder):
    """Its files say 120 Hz and hold 60."""
    recording = standing(5.0, 120.0)
    recording.root_positions[:, 0] = 0.01 * np.arange(len(recording))
    for arrays, suffix in ((smplh_file(recording), "poses"), (smplx_file(recording), "stageii")):
        motion = only_clip(tmp_path / suffix, arrays, f"{folder}/walk_{suffix}.npz").motion
        assert float(motion.root_positions[:, 0].diff().mean()) * 30 == pytest.approx(0.59, abs=1e-4)
    honest = smplx_file(recording, mocap_frame_rate=np.array(60.0))
    motion = only_clip(tmp_path / "honest", honest, f"{folder}/walk_stageii.npz").motion
    assert float(motion.root_positions[:, 0].diff().mean()) * 30 == pytest.approx(0.6, abs=1e-4)
    other = only_clip(tmp_path / "other", smplx_file(recording), "CMU/01/01_01_stageii.npz").motion
    assert float(other.root_positions[:, 0].diff().mean()) * 30 == pytest.approx(1.2, abs=1e-4)


def test_hidden_files_are_no_motions(tmp_path):
    write(tmp_path / "in" / "CMU" / "01" / "01_01_stageii.npz", smplx_file(standing(5.0, 60.0)))
    for name in ("CMU/01/._01_01_stageii.npz", "__MACOSX/CMU/01/01_02_stageii.npz", "CMU/.cache/01_03_stageii.npz"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x00\x05\x16\x07" + bytes(220))
    report = run_import(AmassImporter(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (report.clips, report.dropped, report.exit_code) == (1, [], 0)
