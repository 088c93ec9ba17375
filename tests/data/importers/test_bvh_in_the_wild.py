"""BVH files as exporters write them: layouts, prefixes, units, axes and rates; what fits no person is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from motion_grpo.data.importers.bvh import BvhImporter
from motion_grpo.data.importers.runner import ImportReport, run_import
from motion_grpo.io.bvh import joint_names, read_bvh
from motion_grpo.motion import Motion
from motion_grpo.retargeting.rigs import LAFAN1, RIGS, SOMA77, find_rig
from tests.data.importers.skeletons import FIGURE, NAMES, folded, rotation, t_pose, turned, walk, write_bvh

HEAD, NECK = 15, 12
Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.fixture
def walker(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_bvh(tmp_path / "in" / "a.bvh", *walk())


def motion_of(path: Path, **options) -> Motion:
    importer = BvhImporter(path.parent, **options)
    (clip,) = importer.convert(next(job for job in importer.jobs() if job.path == path))
    return clip.motion


def imported(folder: Path, **options) -> ImportReport:
    return run_import(BvhImporter(folder, **options), folder.parent / "out", progress=False)


def trunk_off_vertical(motion: Motion) -> float:
    """Degrees, the median."""
    trunk = motion.joints[:, NECK] - motion.joints[:, 0]
    return float(torch.rad2deg(torch.acos((trunk[:, 2] / trunk.norm(dim=-1)).clamp(-1, 1))).median())


def traveled(motion: Motion) -> float:
    return float((motion.root_positions[-1] - motion.root_positions[0])[:2].norm())


def same_line_braces(text: str) -> str:
    return re.sub(r"\n\s*\{", " {", text)


LAYOUTS = {
    "brace on the name's line": same_line_braces,
    "end site on one line": lambda text: re.sub(r"End Site\s*\{\s*(OFFSET [^\n]*)\s*\}", r"End Site { \1 }", text),
    "all braces on one line with the next word": lambda text: re.sub(r"\{\s*", "{ ", same_line_braces(text)),
    "no blank before the brace": lambda text: same_line_braces(text).replace(" {", "{"),
    "CRLF and tabs": lambda text: same_line_braces(text).replace("\n", "\r\n").replace("  ", "\t"),
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "comments": lambda text: "# made by hand\n" + text.replace("MOTION", "// the rows\nMOTION # follow\n# here"),
    "lower-case keywords": lambda text: re.sub(
        "HIERARCHY|ROOT|JOINT|End Site|OFFSET|CHANNELS|MOTION|Frames|Frame Time", lambda m: m[0].lower(), text
    ),
    "upper-case keywords and channels": lambda text: re.sub(
        r"End Site|\w(position|rotation)|Frames|Frame Time", lambda m: m[0].upper(), text
    ),
    "no colons": lambda text: text.replace("Frames:", "Frames").replace("Time:", "Time"),
    "a byte-order mark": lambda text: "\ufeff" + text,
    "no end sites": lambda text: re.sub(r"End Site\s*\{[^}]*\}", "", text),
}


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_reads_the_same(walker: Path, change) -> None:
    expected = read_bvh(walker)
    walker.write_bytes(change(walker.read_text()).encode())
    motion = read_bvh(walker)
    assert motion.names == expected.names
    assert torch.equal(motion.positions, expected.positions)
    assert motion.fps == 30


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.replace("JOINT Spine\n", "JOINT Spine OFFSET\n", 1).replace("\t{", "\t", 1), "cannot be read"),
        (lambda t: same_line_braces(t).replace("OFFSET", "OFFSET 1 }", 1), r"line 3: .*something is missing"),
        (lambda t: same_line_braces(t).replace("}", "", 1), "ends within a joint"),
        (lambda t: same_line_braces(t).replace("CHANNELS 3", "CHANNELS three", 1), r"line \d+: .*cannot be read"),
        (lambda t: t.split("JOINT")[0] + "JOINT\nMOTION\n", "cannot be read"),
    ],
)
def test_what_is_no_hierarchy_in_any_layout_is_refused(walker: Path, change, match: str) -> None:
    walker.write_text(change(walker.read_text()))
    with pytest.raises(ValueError, match=match):
        read_bvh(walker)


def test_one_row_more_than_announced_is_read_and_fewer_are_not(walker: Path) -> None:
    text = walker.read_text()
    walker.write_text(text.replace("Frames:\t90", "Frames:\t89"))
    assert len(read_bvh(walker)) == 90
    for announced in (91, 88, 45):
        walker.write_text(text.replace("Frames:\t90", f"Frames:\t{announced}"))
        with pytest.raises(ValueError, match=f"announces {announced} frames and holds 90"):
            read_bvh(walker)


PREFIXES = ["mixamorig:", "mixamorig_", "mixamorig9:", "mixamorig", "Character1_", "model:", "ns:rig:", "Armature|a:"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixed_names_are_the_rigs(walker: Path, prefix: str) -> None:
    expected = motion_of(walker)
    walker.write_text(re.sub("(ROOT|JOINT) ", rf"\1 {prefix}", walker.read_text()))
    assert find_rig(joint_names(walker)).name == "mixamo"
    for rig in ("auto", "mixamo"):
        assert torch.equal(motion_of(walker, rig=rig).joints, expected.joints)


def test_spelling_does_not_count(walker: Path) -> None:
    expected = motion_of(walker).joints

    def spell(m):
        return f"{m[1]} {(m[2] or '').lower()}_{m[3]}"

    spelled = re.sub("(ROOT|JOINT) (Left|Right)?(.*)", spell, walker.read_text())
    walker.write_text(spelled)
    assert torch.equal(motion_of(walker).joints, expected)


def test_the_nearest_rig_is_named_with_what_it_lacks(walker: Path) -> None:
    text = re.sub("(ROOT|JOINT) ", r"\1 mixamorig_", walker.read_text())
    walker.write_text(text.replace("LeftToeBase", "LeftToes").replace("RightToeBase", "RightToes"))
    with pytest.raises(ValueError, match=r"'mixamo' comes nearest, with 20 of 22.*L_foot \(LeftToeBase\), R_foot"):
        motion_of(walker)
    with pytest.raises(ValueError, match=r"fit rig 'soma77'.*L_knee \(LeftShin\).*--rig"):
        motion_of(walker, rig="soma77")


UNITS = [(1.0, "1 (meters)"), (0.001, "0.001 (millimeters)"), (0.0254, "0.0254 (inches)"), (0.3048, "0.3048 (feet)")]


class TestUnits:
    @pytest.mark.parametrize(("unit", "advice"), UNITS)
    def test_a_wrong_unit_is_named_with_the_one_that_fits(self, walker: Path, unit: float, advice: str) -> None:
        expected = motion_of(walker)
        scale = 0.01 / unit
        skeleton = [(name, parent, offset * scale) for name, parent, offset in FIGURE]
        R, p = walk()
        write_bvh(walker, R, p * scale, skeleton)
        report = imported(walker.parent)
        assert report.clips == 0
        assert f"--metres-per-unit {advice}" in report.broken[0].reason
        assert "stature" not in report.broken[0].reason
        motion = motion_of(walker, metres_per_unit=unit)
        torch.testing.assert_close(motion.joints, expected.joints, atol=1e-3, rtol=0)

    @pytest.mark.parametrize("size", [0.6, 1.25])
    def test_children_and_giants_are_people(self, walker: Path, size: float) -> None:
        R, p = walk()
        write_bvh(walker, R, p * size, [(name, parent, offset * size) for name, parent, offset in FIGURE])
        assert imported(walker.parent).clips == 1


class TestUp:
    def test_a_z_up_file_is_refused_by_name_and_right_with_the_option(self, walker: Path) -> None:
        expected = motion_of(walker)
        write_bvh(walker, *turned(Z_UP, *walk()))
        report = imported(walker.parent)
        assert report.clips == 0
        assert "the actor stands along the file's +z axis" in report.broken[0].reason
        assert report.broken[0].reason.endswith("give --up z.")
        motion = motion_of(walker, up="z")
        torch.testing.assert_close(motion.joints, expected.joints, atol=1e-4, rtol=0)
        assert trunk_off_vertical(motion) < 10
        assert traveled(motion) > 2

    def test_a_y_up_file_read_as_z_up_is_refused(self, walker: Path) -> None:
        (dropped,) = imported(walker.parent, up="z").broken
        assert "give --up y" in dropped.reason

    def test_a_standing_actor_in_a_z_up_file(self, walker: Path) -> None:
        write_bvh(walker, *turned(Z_UP, *t_pose(90)))
        assert "--up z" in imported(walker.parent).broken[0].reason

    def test_axes_that_no_option_names(self, walker: Path) -> None:
        write_bvh(walker, *turned(rotation("X", 180), *walk()))
        assert "file's -y axis" in imported(walker.parent).broken[0].reason

    def test_a_z_up_file_whose_zero_pose_is_y_up(self, walker: Path) -> None:
        R, p = walk()
        R[:, 0] = Z_UP.double() @ R[:, 0]
        write_bvh(walker, R, p @ Z_UP.double().mT)
        (dropped,) = imported(walker.parent).broken
        assert re.search("travels at 0.8.* on its side .*--up, --rig", dropped.reason)
        assert trunk_off_vertical(motion_of(walker, up="z")) < 10

    @pytest.mark.parametrize("axis", ["X", "Z"])
    def test_who_lies_on_the_floor_is_kept_and_reported(self, walker: Path, axis: str) -> None:
        R, p = t_pose(90)
        R[:, 0] = rotation(axis, -90)
        write_bvh(walker, R, p - torch.tensor([0, 80.0, 0]))
        report = imported(walker.parent)
        assert (report.clips, report.exit_code) == (1, 0)
        assert "lies stretched out" in report.doubtful[0].reason


def test_the_frame_rate_may_be_given(walker: Path) -> None:
    expected = motion_of(walker)
    write_bvh(walker, *walk(), fps=120.0)
    motion = motion_of(walker, fps=30.0, min_seconds=0.5)
    assert len(motion) == 90
    torch.testing.assert_close(motion.joints, expected.joints)
    assert len(motion_of(walker, min_seconds=0.5)) == 23


def test_a_path_in_another_unit_than_the_bones_is_reported(walker: Path) -> None:
    R, p = walk(speed=0.8)
    write_bvh(walker, R, torch.cat([p[:, :2], p[:, 2:] * 8], dim=1))
    (doubt,) = imported(walker.parent).doubtful
    assert re.search("no foot stands while the body travels.*--metres-per-unit", doubt.reason)


def test_an_honest_walk_is_not_reported(walker: Path) -> None:
    report = imported(walker.parent)
    assert (report.clips, report.doubtful) == (1, [])


# Main joints of NVIDIA's SOMA skeleton as kimodo's BVH files have them: parent, OFFSET in cm.
_SOMA = {
    "Root": ("", (0, 0, 0)), "Hips": ("Root", (0, 100, 0)), "Spine1": ("Hips", (5.0039, -0.0371, -0.0137)),
    "Spine2": ("Spine1", (7.1254, 0, 0)), "Chest": ("Spine2", (7.594, 0, 0)),
    "Neck1": ("Chest", (26.3131, -0.4603, -0.1817)), "Neck2": ("Neck1", (8.0459, 0, 0)),
    "Head": ("Neck2", (6.4328, 0, 0)), "LeftShoulder": ("Chest", (23.2189, 5.1956, 1.6217)),
    "LeftArm": ("LeftShoulder", (15.9021, 0, 0)), "LeftForeArm": ("LeftArm", (28.7393, 0, 0)),
    "LeftHand": ("LeftForeArm", (27.094, 0, 0)), "RightShoulder": ("Chest", (23.1617, 5.2961, -1.3801)),
    "RightArm": ("RightShoulder", (-16.0272, 0, 0)), "RightForeArm": ("RightArm", (-28.7366, 0, 0)),
    "RightHand": ("RightForeArm", (-27.1336, 0, 0)), "LeftLeg": ("Hips", (-8.4431, 2.5676, 10.0432)),
    "LeftShin": ("LeftLeg", (43.2292, 0, 0)), "LeftFoot": ("LeftShin", (42.2986, 0, 0)),
    "LeftToeBase": ("LeftFoot", (14.1659, 0, 0)), "RightLeg": ("Hips", (-8.3039, 2.5927, -10.0473)),
    "RightShin": ("RightLeg", (-43.3697, 0, 0)), "RightFoot": ("RightShin", (-42.2608, 0, 0)),
    "RightToeBase": ("RightFoot", (-14.2222, 0, 0)),
}  # fmt: skip
# The figure's joints that do the same.
_AS_SOMA = {
    "Hips": "Hips", "LeftUpLeg": "LeftLeg", "LeftLeg": "LeftShin", "LeftFoot": "LeftFoot", "LeftArm": "LeftArm",
    "RightUpLeg": "RightLeg", "RightLeg": "RightShin", "RightFoot": "RightFoot", "RightArm": "RightArm",
}  # fmt: skip
_AS_STYLE100 = {
    "Hips": "Hips", "Spine": "Chest", "Spine1": "Chest2", "Spine2": "Chest4", "Neck": "Neck", "Head": "Head",
    **{f"{side}{a}": f"{side}{b}" for side in ("Left", "Right") for a, b in [
        ("Shoulder", "Collar"), ("Arm", "Shoulder"), ("ForeArm", "Elbow"), ("Hand", "Wrist"), ("UpLeg", "Hip"),
        ("Leg", "Knee"), ("Foot", "Ankle"), ("ToeBase", "Toe")]},
}  # fmt: skip


def soma_walk() -> tuple[torch.Tensor, torch.Tensor, list[tuple[str, str, np.ndarray]]]:
    """A walk on the SOMA skeleton, relative to its T-pose: rotations, root positions and the skeleton in T-pose."""
    skeleton = []
    T = {"": np.eye(3)}
    for name, (parent, offset) in _SOMA.items():
        T[name] = SOMA77.t_pose[name]
        skeleton.append((name, parent, T[parent] @ np.array(offset, dtype=float)))
    R, p = walk()
    names = list(_SOMA)
    rotations = torch.eye(3, dtype=torch.float64).repeat(len(R), len(names), 1, 1)
    for own, other in _AS_SOMA.items():
        rotations[:, names.index(other)] = R[:, NAMES.index(own)]
    return rotations, p + torch.tensor([0, -93.0, 0]), skeleton


def assert_walks(motion: Motion) -> None:
    """Upright, ahead along -y, arms down, toes ahead, a foot planted at any time."""
    assert trunk_off_vertical(motion) < 10
    assert float(motion.joints[:, HEAD, 2].median()) == pytest.approx(1.5, abs=0.15)
    way = motion.root_positions[-1] - motion.root_positions[0]
    assert float(way[1]) < -2
    assert abs(float(way[0])) < 0.05
    for side in (0, 1):
        arm = motion.joints[:, 20 + side] - motion.joints[:, 16 + side]
        assert float((arm[:, 2] / arm.norm(dim=-1)).max()) < -0.9
        foot = motion.joints[:, 10 + side] - motion.joints[:, 7 + side]
        assert float(foot[:, 1].max()) < -0.05
        # The left side is left of who faces -y.
        assert (float((motion.joints[:, 4 + side] - motion.joints[:, 0])[:, 0].median()) > 0) == (side == 0)
    feet = motion.joints[:, 10:12].diff(dim=0).norm(dim=-1).amin(1) * 30
    assert float(feet.median()) < 0.1


def test_soma77(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rotations, positions, skeleton = soma_walk()
    assert SOMA77.folded
    # As BONES-SEED has it: x along the bones, the zero pose folded, no end sites.
    local, offsets = folded(SOMA77.t_pose, rotations, skeleton)
    path = write_bvh(tmp_path / "in" / "seed.bvh", local, positions, offsets)
    path.write_text(re.sub(r"End Site\s*\{[^}]*\}", "", path.read_text()))
    assert find_rig(joint_names(path)).name == "soma77"
    seed = motion_of(path)
    assert_walks(seed)
    assert imported(path.parent).doubtful == []
    # As kimodo writes it on demand: the zero pose is the T-pose.
    standard = write_bvh(tmp_path / "in" / "standard.bvh", rotations, positions, skeleton)
    torch.testing.assert_close(motion_of(standard).joints, seed.joints, atol=2e-3, rtol=0)


def test_the_standard_t_pose_of_soma77_is_one(tmp_path: Path) -> None:
    _, positions, skeleton = soma_walk()
    still = torch.eye(3, dtype=torch.float64).repeat(90, len(skeleton), 1, 1)
    local, offsets = folded(SOMA77.t_pose, still, skeleton)
    source = read_bvh(write_bvh(tmp_path / "t.bvh", local, positions[:1].repeat(90, 1), offsets))
    for side, sign in (("Left", 1), ("Right", -1)):
        arm = source.p(f"{side}Hand")[0] - source.p(f"{side}Arm")[0]
        torch.testing.assert_close(arm / arm.norm(), torch.tensor([sign, 0.0, 0]).double(), atol=1e-3, rtol=0)
        leg = source.p(f"{side}Foot")[0] - source.p(f"{side}Leg")[0]
        assert float(leg[1] / leg.norm()) < -0.99
        assert float((source.p(f"{side}ToeBase") - source.p(f"{side}Foot"))[0, 2]) > 0.1
    assert float((source.p("Head") - source.p("Hips"))[0, 1]) > 0.55


def style100(rotations: torch.Tensor) -> tuple[torch.Tensor, list[tuple[str, str, np.ndarray]]]:
    """The figure under 100STYLE's names, with a Chest3 between Chest2 and Chest4."""
    skeleton = [(_AS_STYLE100[n], _AS_STYLE100.get(p, ""), o) for n, p, o in FIGURE]
    at = [name for name, _, _ in skeleton].index("Chest4")
    skeleton[at] = ("Chest4", "Chest3", np.array([0.0, 6, 0]))
    skeleton.insert(at, ("Chest3", "Chest2", np.array([0.0, 6, 0])))
    still = torch.eye(3, dtype=torch.float64).expand(len(rotations), 1, 3, 3)
    return torch.cat([rotations[:, :at], still, rotations[:, at:]], dim=1), skeleton


def test_100style(walker: Path) -> None:
    expected = motion_of(walker)
    R, p = walk()
    rotations, skeleton = style100(R)
    write_bvh(walker, rotations, p, skeleton)
    assert find_rig(joint_names(walker)).name == "100style"
    motion = motion_of(walker)
    assert_walks(motion)
    assert imported(walker.parent).doubtful == []
    torch.testing.assert_close(motion.joints[:, :12], expected.joints[:, :12], atol=5e-3, rtol=0)


def test_lafan1_names_on_a_skeleton_that_stands(walker: Path) -> None:
    expected = motion_of(walker)
    walker.write_text(walker.read_text().replace("ToeBase", "Toe"))
    assert find_rig(joint_names(walker)) is LAFAN1
    torch.testing.assert_close(motion_of(walker).joints, expected.joints)
    folded_pose, offsets = folded(LAFAN1.t_pose, walk()[0], [(n.replace("ToeBase", "Toe"), p, o) for n, p, o in FIGURE])
    write_bvh(walker, folded_pose, walk()[1], offsets)
    torch.testing.assert_close(motion_of(walker).joints, expected.joints, atol=0.02, rtol=0)


def test_a_t_pose_frame_goes_before_a_zero_pose_that_stands(walker: Path) -> None:
    R, p = walk()
    R[0], p[0] = torch.eye(3), torch.tensor([0.0, 90, 0])
    walker = write_bvh(walker, R, p)
    motion = motion_of(walker, t_pose_frame=0)
    assert_walks(motion)


def test_every_rig_knows_its_own_names() -> None:
    for rig in RIGS.values():
        assert find_rig(rig.sources()) is rig
        assert rig.rename([f"prefix_{name}" for name in rig.sources()]) == rig.sources()


def test_hidden_files_are_no_recordings(walker: Path) -> None:
    for name in ("._a.bvh", ".DS_Store", "__MACOSX/a.bvh", ".cache/a.bvh"):
        path = walker.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x00\x05\x16\x07")
    report = imported(walker.parent)
    assert (report.clips, report.dropped, report.exit_code) == (1, [], 0)
