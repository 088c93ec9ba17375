"""The ASF/AMC reader and importer."""

from pathlib import Path

import pytest
import torch

from motion_grpo.data.importers.asf import AsfImporter
from motion_grpo.io.asf import read_asf_amc, skeleton_of
from motion_grpo.io.bvh import read_bvh
from motion_grpo.retargeting.retarget import retarget
from motion_grpo.retargeting.rigs import CMU_ASF, CMU_BVH, CMU_UNIT, find_rig
from tests.conftest import shared_path
from tests.data.importers.reference import reference
from tests.data.importers.skeletons import rotation, write_bvh

ASF = """:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name thigh
     direction 0 -1 0
     length 4
     axis 0 0 20 XYZ
     dof rx rz
  end
  begin
     id 2
     name shank
     direction 0 -1 0
     length 3
     axis 0 0 0 XYZ
     dof rx
  end
  begin
     id 3
     name foot
     direction 0 0 1
     length 1
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root thigh
    thigh shank
    shank foot
  end
"""
AMC = """# comment
:FULLY-SPECIFIED
:DEGREES
1
root 0 10 0 0 0 0
thigh 0 0
shank 0
2
root 0 10 0 10 20 30
thigh 40 5
shank -90
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "9.asf").write_text(ASF)
    (tmp_path / "9_1.amc").write_text(AMC)
    return tmp_path / "9.asf", tmp_path / "9_1.amc"


def test_positions_and_rotations_by_hand(files: tuple[Path, Path]) -> None:
    motion = read_asf_amc(*files)
    assert motion.names == ("root", "thigh", "shank", "foot")
    assert motion.parents == (-1, 0, 1, 2)
    assert motion.fps == 120
    # The base pose: a joint is the start of its bone; 1 unit is an inch / 0.45.
    expected = torch.tensor([[0, 10.0, 0], [0, 10, 0], [0, 6, 0], [0, 3, 0]], dtype=torch.float64) * 0.0254 / 0.45
    torch.testing.assert_close(motion.positions[0], expected)
    torch.testing.assert_close(motion.rotmats[0], torch.eye(3).double().expand(4, 3, 3))
    # Angles turn about fixed axes x, y, z in this order; a bone's own axes are those of the world turned by its `axis`.
    root = rotation("Z", 30) @ rotation("Y", 20) @ rotation("X", 10)
    thigh = root @ rotation("Z", 20) @ rotation("Z", 5) @ rotation("X", 40) @ rotation("Z", -20)
    shank = thigh @ rotation("X", -90)
    torch.testing.assert_close(motion.rotmats[1, :3], torch.stack([root, thigh, shank]).double(), atol=1e-6, rtol=0)
    knee = torch.tensor([0, 10.0, 0]) + thigh @ torch.tensor([0, -4.0, 0])
    torch.testing.assert_close(motion.positions[1, 2], knee.double() * CMU_UNIT, atol=1e-6, rtol=0)


def test_a_byte_order_mark_is_no_bone(files: tuple[Path, Path]) -> None:
    plain = read_asf_amc(*files)
    for path in files:
        path.write_text(path.read_text(), encoding="utf-8-sig")
    torch.testing.assert_close(read_asf_amc(*files).positions, plain.positions)


def test_radians_and_the_order_of_bones(files: tuple[Path, Path]) -> None:
    asf, amc = files
    degrees = read_asf_amc(asf, amc)

    def to_radians(text):
        return " ".join(str(float(w) * torch.pi / 180) for w in text.split())

    asf.write_text(ASF.replace("angle deg", "angle rad").replace("axis 0 0 20", f"axis {to_radians('0 0 20')}"))
    amc.write_text(
        AMC.replace("10 20 30", to_radians("10 20 30"))
        .replace("40 5", to_radians("40 5"))
        .replace("-90", "-1.5707963267")
    )
    torch.testing.assert_close(read_asf_amc(asf, amc).positions, degrees.positions, atol=1e-8, rtol=0)
    reordered = ASF.replace("    root thigh\n    thigh shank\n", "    thigh shank\n    root thigh\n")
    asf.write_text(reordered)
    amc.write_text(AMC)
    torch.testing.assert_close(read_asf_amc(asf, amc).positions, degrees.positions)


@pytest.mark.parametrize(
    ("asf", "amc", "message"),
    [
        ("", AMC, r"9\.asf is no whole ASF file"),
        (ASF.replace("length 4", "length four"), AMC, r"9\.asf, line 16: 'length four'"),
        (ASF.replace("    root thigh", "    root hip"), AMC, r"9\.asf, line 37: 'root hip'"),
        (ASF.replace("    root thigh\n", ""), AMC, "bones foot, shank, thigh hang on no other bone"),
        (ASF, "", r"9_1\.amc is no AMC file"),
        (ASF, AMC[:-10], "frame 1 lacks shank"),
        (ASF, AMC[:-13], r"line 10: 'thigh 40' does not fit .* thigh has 2 degrees of freedom"),
        (ASF, AMC.replace("shank 0\n", "arm 0\n"), "line 7: 'arm 0' does not fit"),
        (ASF, AMC.replace("shank -90", "shank nan"), "frame 1 of shank is not finite"),
        (ASF, AMC.replace("shank -90", "shank x"), "shank holds what is no number"),
    ],
)
def test_broken_files_say_what_and_where(files: tuple[Path, Path], asf: str, amc: str, message: str) -> None:
    files[0].write_text(asf)
    files[1].write_text(amc)
    with pytest.raises(ValueError, match=message):
        read_asf_amc(*files)


def test_importer_pairs_motion_and_skeleton(files: tuple[Path, Path]) -> None:
    importer = AsfImporter(files[1].parent, min_seconds=0.0)
    (job,) = importer.jobs()
    assert (job.id, skeleton_of(job.path)) == ("asf/9_1", files[0])
    with pytest.raises(ValueError, match=r"nothing drives .*L_hip \(lfemur\).*file's joints are root, thigh"):
        importer.convert(job)
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"needs 9\.asf beside it"):
        importer.convert(job)
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no \.amc"):
        importer.jobs()


@pytest.mark.parametrize(("name", "split"), [("02_01", "test"), ("03_01", "val")])
def test_samples_give_the_motion_of_the_reference(name: str, split: str) -> None:
    importer = AsfImporter(shared_path("samples/cmu_asfamc"))
    job = next(job for job in importer.jobs() if job.path.stem == name)
    (clip,) = importer.convert(job)
    expected = reference(f"cmu/{name}", split)
    assert len(clip.motion) == len(expected)
    assert clip.subject == name[:2]
    difference = (clip.motion.joints - expected.joints)[:, :22]
    floor = difference[..., 2].mean()
    difference[..., 2] -= floor
    # Meters, the world's frame, not aligned. The reference was made on the body before that was symmetric; a floor that
    # is held to the data set's usual one (03_01 walks on uneven ground) is another on the two bodies.
    assert float(difference.norm(dim=-1).mean()) < 0.003
    assert abs(float(floor)) < 0.007


# The same bones under the names of the CMU database's BVH conversions.
BVH_NAMES = {
    "root": "Hips", "lfemur": "LeftUpLeg", "ltibia": "LeftLeg", "lfoot": "LeftFoot", "ltoes": "LeftToeBase",
    "lowerback": "LowerBack", "upperback": "Spine", "thorax": "Spine1", "lowerneck": "Neck", "upperneck": "Neck1",
    "head": "Head", "lclavicle": "LeftShoulder", "lhumerus": "LeftArm", "lradius": "LeftForeArm", "lwrist": "LeftHand",
    "lhand": "LeftFingerBase",
}  # fmt: skip
BVH_NAMES |= {"r" + a[1:]: b.replace("Left", "Right") for a, b in BVH_NAMES.items() if b.startswith("Left")}


def test_the_bvh_conversion_of_a_take_gives_the_same_motion(tmp_path: Path) -> None:
    folder = shared_path("samples/cmu_asfamc")
    source = read_asf_amc(folder / "02.asf", folder / "02_01.amc")
    local = torch.cat([source.rotmats[:, :1], source.rotmats[:, source.parents[1:]].mT @ source.rotmats[:, 1:]], dim=1)

    def name(j):
        return BVH_NAMES.get(source.names[j], source.names[j])

    skeleton = [
        (name(j), name(parent) if parent >= 0 else "", (source.offsets[j] / CMU_UNIT).numpy())
        for j, parent in enumerate(source.parents)
    ]
    path = write_bvh(tmp_path / "02_01.bvh", local, source.positions[:, 0] / CMU_UNIT, skeleton, fps=120.0)
    bvh = read_bvh(path, metres_per_unit=CMU_UNIT)
    assert find_rig(bvh.names) is CMU_BVH
    expected = retarget(source, CMU_ASF)
    motion = retarget(bvh, CMU_BVH)
    torch.testing.assert_close(motion.joints, expected.joints, atol=1e-4, rtol=0)
