"""The data set open_mocap_smplh rebuilt from its public sources: same clips, same cuts, same splits, same ids.

Of its second part, ``cmu2``, the takes that are published as ASF/AMC with their skeleton (maxxgx/motion-graphs,
Visdoom/mocapPlayer, encadyma/motion-out), half of its time. The rest exists as BVH or FBX made of them, or on DAZ's
body.

Sources on GitHub: BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset (CC BY-NC 4.0), and of the CMU Graphics
Lab Motion Capture Database the ASF/AMC of subjects 01-03 (cyun9601/CMU-MOCAP-Data) and the BVH on the CC_Base rig of
subjects 05 and 07 (DragonForgedTheArtist/IClone-CMU-Mocap).
"""

import re
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from motion_grpo.data.clips import Clip, ClipError
from motion_grpo.data.importers.asf import CMU_LICENSE
from motion_grpo.data.importers.base import Job
from motion_grpo.data.importers.cmu_subjects import CONTENTS, LEFT_OUT, ON_EQUIPMENT, SUBJECTS
from motion_grpo.data.importers.source_clips import clips_of
from motion_grpo.files import source_files
from motion_grpo.io.asf import read_asf_amc, skeleton_of
from motion_grpo.io.bvh import joint_names, read_bvh
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.retargeting.rigs import BANDAI, CC_BASE, CMU_ASF, Rig

BANDAI_LICENSE = (
    "CC BY-NC 4.0 (non-commercial), (c) 2022 Bandai Namco Research Inc.; changed: retargeted to SMPL-H. Kobayashi et "
    "al., arXiv:2306.08861."
)
MIN_SECONDS = 2.001
"""Files of 60 frames are left out, pieces of 60 frames are not: 60 times the frame time that files give, 0.0333333 s,
is a hair less than 2 s."""
BETAS0 = {"01": 1.06, "02": 0.79, "03": 1.14, "05": CC_BASE.betas0, "07": CC_BASE.betas0}
"""Size of the CMU database's subjects."""

CMU_SPLIT = {"01": "train", "02": "test", "03": "val", "05": "train", "07": "test"}
"""By subject: nobody is in two splits."""
TEST_STYLES, VAL_STYLES = {"old", "elderly", "musical"}, {"masculinity", "masculine", "proud"}
TEST_CONTENTS = {"wave-both-hands", "guide", "kick", "slash"}
VAL_CONTENTS = {"raise-up-both-hands", "punch", "bow"}
HELD_BACK = {
    ("bandai1", "walk", "tired"), ("bandai1", "run", "giant"), ("bandai1", "walk-back", "happy"),
    ("bandai1", "byebye", "sad"), ("bandai1", "dash", "feminine"), ("bandai1", "walk-left", "chimpira"),
    ("bandai1", "walk-right", "old"), ("bandai1", "bye", "angry"), ("bandai2", "walk-turn-left", "feminine"),
    ("bandai2", "run", "exhausted"), ("bandai2", "raise-up-right-hand", "youthful"), ("bandai2", "walk", "elderly"),
}  # fmt: skip
"""Whole cells (data set, content, style) that are in no split."""

_BANDAI_FILE = re.compile(r"dataset-(?P<set>[12])_(?P<content>[^_]+)_(?P<style>[^_]+)_(?P<number>\d+)\.bvh")
_AMC_FILE = re.compile(r"(?P<subject>0[123])_(?P<take>\d\d)\.amc")
_AMC2_FILE = re.compile(rf"(?P<subject>{'|'.join(SUBJECTS)})_(?P<take>\d\d)(?:-\w+)?\.amc")
_CC_FILE = re.compile(r"0(?P<subject>0[57])_(?P<take>\d\d)\.bvh")


@dataclass(frozen=True)
class OpenMocapImporter:
    """Folders that hold clones of the sources; either may be None (CMU alone is free for all uses)."""

    bandai: Path | None = None
    cmu: Path | None = None
    """Holds the ASF/AMC files and the CC_Base BVH files, at any depth."""
    name: str = "open-mocap"

    def jobs(self) -> list[Job]:
        """One a file that belongs to the data set, by clip id; ``split`` is decided here.

        Raises:
            FileNotFoundError: a folder without any file of its source.
            ValueError: neither folder is given, or a take lies there twice.
        """
        if self.bandai is None and self.cmu is None:
            raise ValueError("open-mocap needs the folder of the Bandai-Namco repository, of CMU files, or both.")
        jobs = []
        for folder, patterns in ((self.bandai, (_BANDAI_FILE,)), (self.cmu, (_AMC_FILE, _AMC2_FILE, _CC_FILE))):
            if folder is None:
                continue
            files = source_files(folder)
            matches = [(p, m) for p in files for pattern in patterns if (m := pattern.fullmatch(p.name))]
            if not matches:
                raise FileNotFoundError(f"{folder} holds no file of its source, such as {_EXAMPLES[patterns[0]]}.")
            # Originals go before what iClone made of them, without true size and path.
            originals = {match["subject"] for _, match in matches if match.re is _AMC2_FILE}
            matches = [(p, m) for p, m in matches if m.re is not _CC_FILE or m["subject"] not in originals]
            jobs += [_job(path, second=match.re is _AMC2_FILE, **match.groupdict()) for path, match in matches]
        jobs = sorted((job for job in jobs if job.split), key=lambda job: (job.id, str(job.path)))
        for one, other in pairwise(jobs):
            if one.id == other.id:
                raise ValueError(f"{one.path} and {other.path} are the same take ({one.id}); leave one.")
        return jobs

    def convert(self, job: Job) -> list[Clip]:
        """Reads, retargets and cuts one file.

        Raises:
            ClipError: under 2 s, before or after cutting, or an export without vertical hip motion.
            ValueError: a broken file.
        """
        source, take = job.id.split("/")
        if source == "cmu2" and take in LEFT_OUT:
            raise ClipError(LEFT_OUT[take])
        subject = job.extra["subject"]
        min_seconds, betas0 = MIN_SECONDS, BETAS0.get(subject)
        if source == "cmu2":
            motion = read_asf_amc(skeleton_of(job.path), job.path)
            rig, betas0, min_seconds = _second(subject, job.extra["content"], motion)
        elif source != "cmu":
            motion, rig = read_bvh(job.path, metres_per_unit=BANDAI.metres_per_unit), BANDAI
        elif job.path.suffix == ".amc":
            motion, rig = read_asf_amc(skeleton_of(job.path), job.path), CMU_ASF
        elif "RL_BoneRoot" in joint_names(job.path):
            raise ClipError("no vertical hip motion (RL_BoneRoot export)")
        else:
            motion, rig = read_bvh(job.path, metres_per_unit=CC_BASE.metres_per_unit, root_offset_added=True), CC_BASE
        return clips_of(
            job,
            motion,
            rig,
            min_seconds,
            source_name=source,
            license=BANDAI_LICENSE if source.startswith("bandai") else CMU_LICENSE,
            subject=f"cmu{subject}" if subject else "",
            content=job.extra["content"],
            betas0=rig.betas0 if betas0 is None else betas0,
        )


def _second(subject: str, content: str, motion: SourceMotion) -> tuple[Rig, float, float]:
    """The rig, size and shortest piece, seconds, by which ``cmu2`` was made.

    Each subject has feet and a floor of its own; whole takes count from one second on, pieces of longer ones from two.
    """
    person = SUBJECTS[subject]
    tolerance = 0.02 if content in ON_EQUIPMENT else 0.04
    rig = replace(CMU_ASF, references=person.feet, floor=person.floor, floor_tolerance=tolerance)
    frames = -(-len(motion) // 4)
    return rig, person.betas0, (30 if frames < 60 else 58) / 30 + 1e-6


_EXAMPLES = {_BANDAI_FILE: "dataset-1_walk_normal_001.bvh", _AMC_FILE: "02_01.amc"}


def split_of(id: str, content: str = "", style: str = "", subject: str = "") -> str:
    """The split of a take by its id without ``+n``; empty where it is held back.

    CMU goes by subject, Bandai by whole styles and contents. Every tenth take of what would be train (of
    ``cmu2`` every twentieth) is ``id_test``.
    """
    second = id.startswith("cmu2/")
    if second:
        split = SUBJECTS[subject].split
    elif subject:
        split = CMU_SPLIT[subject]
    elif (id.split("/")[0], content, style) in HELD_BACK:
        return ""
    elif style in TEST_STYLES or content in TEST_CONTENTS:
        split = "test"
    elif style in VAL_STYLES or content in VAL_CONTENTS:
        split = "val"
    else:
        split = "train"
    return "id_test" if split == "train" and zlib.crc32(id.encode()) % (20 if second else 10) == 0 else split


def _job(path: Path, *, second: bool, **parts: str) -> Job:
    subject, content = parts.get("subject", ""), parts.get("content", "")
    if subject:
        take = f"{subject}_{parts['take']}"
        id, content = f"{'cmu2' if second else 'cmu'}/{take}", CONTENTS.get(take, "") if second else ""
    else:
        id = f"bandai{parts['set']}/{content}_{parts['style']}_{parts['number']}"
    split = split_of(id, content, parts.get("style", ""), subject)
    return Job(id=id, path=path, split=split, extra={"subject": subject, "content": content})
