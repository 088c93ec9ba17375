"""The importer of a folder of ASF/AMC files, the CMU Graphics Lab Motion Capture Database's format."""

from dataclasses import dataclass, replace
from pathlib import Path

from motion_grpo.data.clips import Clip
from motion_grpo.data.importers.base import Job
from motion_grpo.data.importers.source_clips import clips_of
from motion_grpo.files import source_files
from motion_grpo.io.asf import read_asf_amc, skeleton_of
from motion_grpo.retargeting.rigs import CMU_ASF

CMU_LICENSE = (
    "Free for all uses. The data used in this project was obtained from mocap.cs.cmu.edu. The database was created "
    "with funding from NSF EIA-0196217."
)


@dataclass(frozen=True)
class AsfImporter:
    """Every ``*.amc`` below a folder, each with its subject's ``.asf`` beside it (``02_01.amc`` and ``02.asf``)."""

    folder: Path
    fps: float = 120.0
    stature: float | None = None
    """Of the actor, meters; None: estimated from the skeleton."""
    metres_per_unit: float | None = None
    """None: as the skeleton's file says, in CMU's way."""
    min_seconds: float = 2.0
    """Shorter pieces are dropped."""
    split: str = "train"
    license: str = CMU_LICENSE
    name: str = "asf"

    def jobs(self) -> list[Job]:
        """One a motion file, by path.

        Raises:
            FileNotFoundError: no such folder, or no AMC in it.
        """
        root = Path(self.folder)
        files = [p for p in source_files(root) if p.suffix.lower() == ".amc"]
        if not files:
            raise FileNotFoundError(f"{self.folder} holds no .amc file.")
        return [
            Job(id=f"{self.name}/{p.relative_to(root).with_suffix('').as_posix()}", path=p, split=self.split)
            for p in files
        ]

    def convert(self, job: Job) -> list[Clip]:
        """Reads, retargets and cuts one file.

        Raises:
            ClipError: nothing of ``min_seconds`` is left.
            FileNotFoundError: there is no skeleton beside the motion.
            ValueError: a broken file, or a skeleton that does not fit (lists the joints that did not map).
        """
        asf = skeleton_of(job.path)
        unit = self.metres_per_unit
        return clips_of(
            job,
            read_asf_amc(asf, job.path, fps=self.fps, metres_per_unit=unit),
            CMU_ASF if unit is None else replace(CMU_ASF, metres_per_unit=unit),
            self.min_seconds,
            source_name=self.name,
            license=self.license,
            subject=asf.stem,
            stature=self.stature,
        )
