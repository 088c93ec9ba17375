"""The data set open_mocap_smplh rebuilt from its public sources: same clips, same cuts, same splits, same ids.

Sources on GitHub: BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset (CC BY-NC 4.0), and of the CMU Graphics
Lab Motion Capture Database the ASF/AMC of subjects 01-03 (cyun9601/CMU-MOCAP-Data) and the BVH on the CC_Base rig of
subjects 05 and 07 (DragonForgedTheArtist/IClone-CMU-Mocap).
"""

import re
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from motion_grpo.data.clips import Clip
from motion_grpo.data.importers.asf import CMU_LICENSE, read_asf_amc, skeleton_of
from motion_grpo.data.importers.bvh import clips_of, joint_names, read_bvh
from motion_grpo.data.importers.rigs import BANDAI, CC_BASE, CMU_ASF
from motion_grpo.data.importing import ClipError, Job, source_files

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
        for folder, patterns in ((self.bandai, (_BANDAI_FILE,)), (self.cmu, (_AMC_FILE, _CC_FILE))):
            if folder is None:
                continue
            files = source_files(folder)
            matches = [(p, m) for p in files for pattern in patterns if (m := pattern.fullmatch(p.name))]
            if not matches:
                raise FileNotFoundError(f"{folder} holds no file of its source, such as {_EXAMPLES[patterns[0]]}.")
            jobs += [_job(path, **match.groupdict()) for path, match in matches]
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
        source = job.id.split("/")[0]
        subject = job.extra["subject"]
        if source != "cmu":
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
            MIN_SECONDS,
            source_name=source,
            license=CMU_LICENSE if source == "cmu" else BANDAI_LICENSE,
            subject=f"cmu{subject}" if subject else "",
            content=job.extra["content"],
            betas0=BETAS0.get(subject, rig.betas0),
        )


_EXAMPLES = {_BANDAI_FILE: "dataset-1_walk_normal_001.bvh", _AMC_FILE: "02_01.amc"}


def split_of(id: str, content: str = "", style: str = "", subject: str = "") -> str:
    """The split of a take by its id without ``+n``; empty where it is held back.

    CMU goes by subject, Bandai by whole styles and contents. Every tenth take of what would be train is ``id_test``.
    """
    if subject:
        split = CMU_SPLIT[subject]
    elif (id.split("/")[0], content, style) in HELD_BACK:
        return ""
    elif style in TEST_STYLES or content in TEST_CONTENTS:
        split = "test"
    elif style in VAL_STYLES or content in VAL_CONTENTS:
        split = "val"
    else:
        split = "train"
    return "id_test" if split == "train" and zlib.crc32(id.encode()) % 10 == 0 else split


def _job(path: Path, **parts: str) -> Job:
    subject = parts.get("subject", "")
    if subject:
        id = f"cmu/{subject}_{parts['take']}"
        return Job(id=id, path=path, split=split_of(id, subject=subject), extra={"subject": subject, "content": ""})
    id = f"bandai{parts['set']}/{parts['content']}_{parts['style']}_{parts['number']}"
    return Job(
        id=id,
        path=path,
        split=split_of(id, parts["content"], parts["style"]),
        extra={"subject": "", "content": parts["content"]},
    )
