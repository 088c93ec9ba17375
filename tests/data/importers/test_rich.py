"""RICH in its published layout, written here from a motion that is known, read back to the same motion."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from datasets import load_dataset
from smplx.lbs import batch_rigid_transform
from torch import Tensor

from motion_grpo.body import NUM_BETAS, PARENTS, Skeleton
from motion_grpo.body.smplx import load_smplx
from motion_grpo.data.clips import ClipError
from motion_grpo.data.importers.rich import RichImporter
from motion_grpo.data.importers.rich_scene import find_scene, read_scan
from motion_grpo.data.importers.runner import run_import
from motion_grpo.data.schema import row_to_clip
from motion_grpo.geometry.rotations import yaw_rotation
from motion_grpo.motion import Motion
from tests.data.importers.recordings import kicking

# A camera at 1.5 m that looks down a little: y down, z forward. World points are rows: p_world = c * p_camera @ R + t.
R = np.array([[1.0, 0, 0], [0, -0.2, -(0.96**0.5)], [0, 0.96**0.5, -0.2]])
T, C = np.array([0.3, -0.2, 1.5]), 1.004
# Its names and sizes; real files hold float32 arrays of shape (1, size).
SIZES = {
    "betas": 10, "global_orient": 3, "transl": 3, "left_hand_pose": 12, "right_hand_pose": 12, "jaw_pose": 3,
    "leye_pose": 3, "reye_pose": 3, "expression": 10, "pose_embedding": 32, "body_pose": 63,
}  # fmt: skip


def person(seconds: float = 2.0, heading: float = 0.7) -> Motion:
    """Stands on the right foot, 1 m ahead of the origin, and kicks; the floor at z = 0.4."""
    recording = kicking(seconds, 30.0, toe_height=0.41)
    rotmats = roma.rotvec_to_rotmat(torch.tensor(recording.rotvecs, dtype=torch.float32))
    turn = yaw_rotation(torch.tensor(heading))
    frames = len(rotmats)
    return Motion(
        root_rotmats=turn @ rotmats[:, 0],
        root_positions=torch.tensor(recording.root_positions, dtype=torch.float32) + torch.tensor([0.0, 1.0, 0.0]),
        body_rotmats=rotmats[:, 1:22],
        betas=torch.zeros(NUM_BETAS),
        contacts=torch.zeros(frames, 21),
        timestamps=torch.arange(frames, dtype=torch.float64) / 30,
    )


def write_fits(folder: Path, subject: str, motion: Motion, rest_pelvis: Tensor, first: int = 5, **extra) -> None:
    """A file a frame, in the frame of the cameras."""
    pelvis = (motion.root_positions.numpy() - T / C) @ R.T
    orient = roma.rotmat_to_rotvec(torch.tensor(R, dtype=torch.float32) @ motion.root_rotmats)
    for i in range(len(motion)):
        fit = {name: np.zeros((1, size), np.float32) for name, size in SIZES.items()}
        fit["transl"][0] = pelvis[i] - rest_pelvis.numpy()
        fit["global_orient"][0] = orient[i]
        fit["body_pose"][0] = roma.rotmat_to_rotvec(motion.body_rotmats[i]).flatten()
        for name, value in extra.items():
            fit[name][0] = value
        path = folder / f"{first + i:05d}" / f"{subject}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(fit, protocol=2))


def write_world(root: Path, *names: str, rotation: np.ndarray = R) -> None:
    folder = root / "multicam2world"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("ParkingLot1",):
        content = {"R": rotation.tolist(), "t": T.tolist(), "c": C}
        (folder / f"{name}_multicam2world.json").write_text(json.dumps(content))


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """One sequence of one person, in the layout of the archives."""
    write_fits(tmp_path / "train_body" / "ParkingLot1_005_pushup2", "005", person(), Skeleton.default().J0[0])
    write_world(tmp_path)
    return tmp_path


def assert_same(joints: Tensor, truth: Tensor) -> None:
    """Equal but for the floor, which lies 1 cm under the standing toes."""
    floor = truth[0, 0, 2] - joints[0, 0, 2]
    assert floor == pytest.approx(0.4, abs=2e-3)
    torch.testing.assert_close(joints, truth - torch.tensor([0.0, 0.0, floor]), atol=1e-4, rtol=0)


def convert(root: Path, **options) -> list:
    importer = RichImporter(root, **options)
    return [clip for job in importer.jobs() for clip in importer.convert(job)]


def test_the_motion_comes_back_in_a_z_up_world_with_the_floor_at_zero(rich):
    [clip] = convert(rich)
    truth, motion = person(), clip.motion
    assert (clip.id, clip.source, clip.subject, clip.split) == ("ParkingLot1_005_pushup2", "rich", "005", "train")
    assert (len(motion), motion.fps, motion.floor_height) == (60, pytest.approx(30), 0.0)
    assert_same(motion.joints, truth.joints)
    torch.testing.assert_close(motion.body_rotmats, truth.body_rotmats, atol=1e-5, rtol=0)
    assert motion.hand_rotmats is None
    # The right foot stands throughout; the left one leaves the floor.
    assert motion.contacts[:, 10].min() == 1
    assert 0 < motion.contacts[:, 9].mean() < 0.9


def test_a_rotation_of_three_decimals_is_made_one(rich):
    write_world(rich, rotation=np.round(R, 3))
    [clip] = convert(rich)
    scene = find_scene(rich, "ParkingLot1_005_pushup2")
    torch.testing.assert_close(scene.R_world_camera @ scene.R_world_camera.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(clip.motion.joints, person().joints - torch.tensor([0, 0, 0.4]), atol=5e-3, rtol=0)


def test_missing_frames_cut_clips_in_two(rich):
    folder = rich / "train_body" / "ParkingLot1_005_pushup2"
    for frame in (20, 40):
        (folder / f"{frame:05d}" / "005.pkl").unlink()
    clips = convert(rich, min_seconds=0.6)
    # Frames 5-19 are 15, too short for 0.6 s; 21-39 and 41-64 are left.
    assert [(clip.id, len(clip.motion)) for clip in clips] == [
        ("ParkingLot1_005_pushup2", 19), ("ParkingLot1_005_pushup2/00041", 24),
    ]  # fmt: skip
    assert_same(clips[0].motion.joints, person().joints[16:35])
    assert_same(clips[1].motion.joints, person().joints[36:60])
    assert clips[1].motion.timestamps[0] == 0
    importer = RichImporter(rich)
    with pytest.raises(ClipError, match="fewer than 1 s of consecutive fits"):
        importer.convert(importer.jobs()[0])


def test_splits_people_and_layouts(rich):
    pelvis = Skeleton.default().J0[0]
    both = rich / "bodies" / "val" / "Pavallion_003_018_tossball"
    write_fits(both, "003", person(1.2), pelvis)
    write_fits(both, "018", person(1.5, heading=2.0), pelvis)
    write_fits(rich / "test_body" / "Gym_010_cooking1", "010", person(1.0), pelvis)
    (rich / "test_body" / "readme").mkdir()
    write_world(rich, "ParkingLot1", "Pavallion", "Gym")
    jobs = RichImporter(rich).jobs()
    assert [(job.split, job.id) for job in jobs] == [
        ("train", "ParkingLot1_005_pushup2"), ("val", "Pavallion_003_018_tossball/003"),
        ("val", "Pavallion_003_018_tossball/018"), ("test", "Gym_010_cooking1"), ("test", "readme"),
    ]  # fmt: skip
    clips = [clip for job in jobs[:-1] for clip in RichImporter(rich).convert(job)]
    assert [len(clip.motion) for clip in clips] == [60, 36, 45, 30]
    assert [clip.subject for clip in clips] == ["005", "003", "018", "010"]
    with pytest.raises(ClipError, match="not named like a sequence"):
        RichImporter(rich).convert(jobs[-1])


def test_which_scene_a_sequence_was_recorded_in(tmp_path):
    for capture, scan in (("LectureHall", "scan_yoga_scene_camcoord"), ("Gym", "scan_table_camcoord")):
        (tmp_path / "scan_calibration" / capture).mkdir(parents=True)
        (tmp_path / "scan_calibration" / capture / f"{scan}.ply").touch()
    write_world(tmp_path, "LectureHall_yoga", "Gym")
    write_world(tmp_path, "LectureHall_chair", rotation=np.eye(3))
    chair = find_scene(tmp_path, "LectureHall_020_wipingtable1")
    assert torch.equal(chair.R_world_camera, torch.eye(3))
    assert chair.scan is None
    yoga = find_scene(tmp_path, "LectureHall_009_021_reparingprojector1")
    torch.testing.assert_close(yoga.R_world_camera, torch.tensor(R.T, dtype=torch.float32))
    assert yoga.scan.name == "scan_yoga_scene_camcoord.ply"
    assert find_scene(tmp_path, "Gym_011_cooking2").scan.name == "scan_table_camcoord.ply"
    assert find_scene(tmp_path, "Gym_011_dips1").scan is None


def write_smplx(folder: Path, gender: str, rest: Tensor, seed: int) -> None:
    """A body with SMPL-X's arrays; its joints are single vertices, ``rest`` where betas are 0."""
    rng = np.random.default_rng(seed)
    to_smplx = [*range(22), *range(25, 55)]
    template = rng.normal(size=(10475, 3)).astype(np.float32)
    regressor = np.zeros((55, 10475), np.float32)
    regressor[np.arange(55), np.arange(55)] = 1
    template[to_smplx] = rest.numpy()
    directions = np.zeros((10475, 3, 20), np.float32)
    directions[:55, :, :10] = rng.normal(size=(55, 3, 10)) * 3e-3
    hands = {f"hands_mean{s}": rng.normal(size=45) * 0.1 for s in "lr"}
    hands |= {f"hands_components{s}": np.linalg.qr(rng.normal(size=(45, 45)))[0] for s in "lr"}
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / f"SMPLX_{gender.upper()}.npz", v_template=template, shapedirs=directions, J_regressor=regressor,
        joint2num=np.array({"pelvis": 0}, object), **hands,
    )  # fmt: skip


@pytest.fixture
def tall() -> Tensor:
    """Shape of a neutral body whose bones the female model's mean has."""
    betas = torch.zeros(NUM_BETAS)
    betas[:3] = torch.tensor([1.5, -0.8, 0.5])
    return betas


@pytest.fixture
def bodies(tmp_path, tall) -> Path:
    default = Skeleton.default()
    # The models' origins are not the neutral one's.
    shift = torch.tensor([0.01, -0.05, 0.02])
    write_smplx(tmp_path / "smplx", "female", default.rest_joints(tall) + shift, seed=1)
    write_smplx(tmp_path / "smplx", "male", default.J0, seed=2)
    return tmp_path / "smplx"


def fitted_joints(folder: Path, gender: str, fit: dict) -> Tensor:
    """World positions of SMPL-H's joints of one frame, by smplx's own kinematics."""
    body = load_smplx(folder, gender)
    rest = body.rest_joints(torch.tensor(fit["betas"][0]))
    hands = body.hand_rotmats(torch.tensor(fit["left_hand_pose"]), torch.tensor(fit["right_hand_pose"]))
    rotvecs = torch.tensor(np.concatenate([fit["global_orient"][0], fit["body_pose"][0]])).unflatten(0, (22, 3))
    rotmats = torch.cat([roma.rotvec_to_rotmat(rotvecs), hands[0]])
    joints, _ = batch_rigid_transform(rotmats[None], rest[None], torch.tensor(PARENTS))
    return torch.tensor((joints[0].numpy() + fit["transl"][0]) @ R + T / C, dtype=torch.float32)


def test_with_body_models_shape_hands_and_pelvis_are_the_fitted_ones(tmp_path, bodies, tall):
    female = load_smplx(bodies, "female")
    betas, left, right = np.linspace(-1, 1, 10), np.linspace(-0.5, 0.5, 12), np.full(12, 0.2)
    pelvis = female.rest_joints(torch.tensor(betas, dtype=torch.float32))[0]
    folder = tmp_path / "test_body" / "ParkingLot2_017_eating1"
    write_fits(folder, "017", person(), pelvis, betas=betas, left_hand_pose=left, right_hand_pose=right)
    write_world(tmp_path, "ParkingLot2")
    [clip] = convert(tmp_path, body_models=bodies)
    motion = clip.motion
    for frame in (0, 25):
        fit = pickle.loads((folder / f"{5 + frame:05d}" / "017.pkl").read_bytes())
        truth = fitted_joints(bodies, "female", fit)
        truth[:, 2] += motion.root_positions[0, 2] - person().root_positions[0, 2]
        # The pelvis is exact; bones follow as well as ten numbers of shape can.
        torch.testing.assert_close(motion.joints[frame, 0], truth[0], atol=1e-4, rtol=0)
        assert (motion.joints[frame, :22] - truth[:22]).norm(dim=-1).max() < 0.04
    components = load_smplx(bodies, "female").hand_components
    thumb = components[1, :12].T @ torch.full((12,), 0.2) + female.hand_mean[1]
    expected = roma.rotvec_to_rotmat(thumb.reshape(15, 3))
    torch.testing.assert_close(motion.hand_rotmats[7, 15:], expected, atol=1e-4, rtol=0)
    assert convert(tmp_path, body_models=bodies, hands=False)[0].motion.hand_rotmats is None

    write_fits(folder, "017", person(), female.J0[0])
    [clip] = convert(tmp_path, body_models=bodies)

    def bones(joints):
        return joints[1:22] - joints[list(PARENTS[1:22])]

    default = Skeleton.default()
    error = bones(default.rest_joints(clip.motion.betas)) - bones(default.rest_joints(tall))
    assert error.norm(dim=-1).max() < 4e-3
    assert bones(default.J0 - default.rest_joints(tall)).norm(dim=-1).max() > 0.015


def write_scan(path: Path, height: float, kind: str = "float") -> None:
    """A floor of 10 x 10 m and a table over a part of it, with colors and one triangle, in the cameras' frame."""
    x, y = np.meshgrid(np.arange(-5, 5, 0.05), np.arange(-5, 5, 0.05))
    floor = np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], axis=1)
    table = floor[:500] + np.array([0, 0, 0.75])
    points = (np.concatenate([floor, table]) - T / C) @ R.T
    number = {"float": "<f4", "double": "<f8"}[kind]
    vertices = np.zeros(len(points), [("x", number), ("y", number), ("z", number), ("red", "u1"), ("green", "u1")])
    for i, axis in enumerate("xyz"):
        vertices[axis] = points[:, i]
    header = [
        "ply", "format binary_little_endian 1.0", "comment scanned", f"element vertex {len(points)}",
        *(f"property {kind} {axis}" for axis in "xyz"), "property uchar red", "property uchar green",
        "element face 1", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    face = b"\x03" + np.array([0, 1, 2], "<i4").tobytes()
    path.write_bytes(("\n".join(header) + "\n").encode() + vertices.tobytes() + face)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_with_body_models_the_floor_is_the_ground_of_the_scan(rich, bodies, kind):
    # 2 cm under the standing sole, which the feet alone cannot tell.
    scan = rich / "scan_calibration" / "ParkingLot1" / "scan_camcoord.ply"
    write_scan(scan, height=0.38, kind=kind)
    [clip] = convert(rich, body_models=bodies)
    drop = person().root_positions[:, 2] - clip.motion.root_positions[:, 2]
    # Soles stand 6.5 mm under the floor, from which toe joints are 1 cm away.
    torch.testing.assert_close(drop, torch.full_like(drop, 0.3865), atol=2e-3, rtol=0)
    assert clip.motion.contacts[:, 10].min() == 1
    [clip] = convert(rich)
    drop = person().root_positions[:, 2] - clip.motion.root_positions[:, 2]
    torch.testing.assert_close(drop, torch.full_like(drop, 0.40), atol=2e-3, rtol=0)


def test_scans_that_cannot_be_read(tmp_path):
    path = tmp_path / "scan.ply"
    write_scan(path, 0.0)
    data = path.read_bytes()
    assert read_scan(path).shape == (40500, 3)
    for bad, match in (
        (data[:5000], "cut off"),
        (data.replace(b"binary_little_endian", b"ascii"), "no binary little-endian PLY"),
        (data.replace(b"property float z", b"property float w"), "no binary little-endian PLY"),
        (b"solid stl", "no PLY file"),
        (b"ply\n", "no PLY file"),
    ):
        other = tmp_path / f"{len(list(tmp_path.iterdir()))}.ply"
        other.write_bytes(bad)
        with pytest.raises(ValueError, match=match):
            read_scan(other)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda fit: fit | {"x": Evil()}, r"00010/005.pkl .*names (builtins|__builtin__)\.exec"),
        (lambda fit: {k: v for k, v in fit.items() if k != "transl"}, "00010/005.pkl is no fit of RICH: transl"),
        (lambda fit: fit | {"body_pose": np.zeros((1, 69))}, "body_pose is not an array of 63 numbers"),
        (lambda fit: fit | {"body_pose": fit["body_pose"] * np.nan}, "00010/005.pkl: body_pose holds numbers"),
        (lambda fit: [fit], "is no fit of RICH"),
    ],
)
def test_a_bad_fit_is_named(rich, change, match):
    path = rich / "train_body" / "ParkingLot1_005_pushup2" / "00010" / "005.pkl"
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes())), protocol=2))
    with pytest.raises(ValueError, match=match) as error:
        convert(rich)
    assert not isinstance(error.value, ClipError)


def test_folders_that_are_not_rich(rich, tmp_path_factory, bodies):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match="holds no bodies of RICH; looked for train_body"):
        RichImporter(empty).jobs()
    with pytest.raises(FileNotFoundError, match=r"SMPLX_MALE\.npz"):
        RichImporter(rich, body_models=empty).jobs()
    (bodies / "SMPLX_MALE.npz").unlink()
    np.savez(bodies / "SMPLX_MALE.npz", v_template=np.zeros((6890, 3)))
    load_smplx.cache_clear()
    with pytest.raises(ValueError, match=r"no SMPL-X file: v_template is \(6890, 3\)"):
        RichImporter(rich, body_models=bodies).jobs()
    (rich / "multicam2world" / "ParkingLot1_multicam2world.json").write_text('{"R": 1}')
    with pytest.raises(ValueError, match="no multicam2world file"):
        convert(rich)
    write_world(rich, rotation=np.diag([1.0, 1.0, -1.0]))
    with pytest.raises(ValueError, match="holds no similarity transform"):
        convert(rich)
    (rich / "multicam2world" / "ParkingLot1_multicam2world.json").rename(rich / "multicam2world" / "other.json")
    with pytest.raises(
        FileNotFoundError, match=r"ParkingLot1_multicam2world\.json, which ParkingLot1_005_pushup2 needs"
    ):
        convert(rich)
    (rich / "multicam2world").rename(rich / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"get multicam2world\.zip"):
        convert(rich)


def test_an_import_keeps_the_good_and_reports_the_bad(rich, tmp_path):
    bad = rich / "train_body" / "ParkingLot1_007_eating1" / "00001"
    bad.mkdir(parents=True)
    pelvis = Skeleton.default().J0[0]
    write_fits(bad.parent, "007", person(1.2), pelvis)
    (bad.parent / "00006" / "007.pkl").write_bytes(b"\x80\x04broken")
    write_fits(rich / "val_body" / "ParkingLot1_004_eating2", "004", person(0.5), pelvis)
    report = run_import(RichImporter(rich), tmp_path / "out", progress=False)
    assert (report.clips, report.frames) == (1, 60)
    assert [(dropped.id, dropped.broken) for dropped in report.dropped] == [
        ("ParkingLot1_007_eating1", True), ("ParkingLot1_004_eating2", False),
    ]  # fmt: skip
    [row] = load_dataset("parquet", data_files=str(tmp_path / "out" / "train" / "*.parquet"), split="train")
    joints = row_to_clip(row).motion.joints
    assert_same(joints, person().joints)
