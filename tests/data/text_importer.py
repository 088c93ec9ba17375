"""An importer of files that say what is to happen; processes import it without the shape checker of the tests."""

import errno
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from motion_grpo.data import Clip, ClipError, Job
from motion_grpo.motion import Motion
from tests.tiny import moving_clip


@dataclass(frozen=True)
class TextImporter:
    """Reads a folder of ``SPLIT/NAME.txt`` whose content says what happens: a number of frames, or a fault."""

    folder: Path
    name: str = "texts"

    def jobs(self) -> list[Job]:
        return [Job(p.stem, p, p.parent.name) for p in sorted(self.folder.glob("*/*.txt"))]

    def convert(self, job: Job) -> list[Clip]:
        what, _, argument = job.path.read_text().partition(" ")
        if what == "skip":
            raise ClipError(argument)
        if what == "broken":
            raise EOFError(argument)
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if what == "killed":  # once that file exists
            for _ in range(1000):
                if Path(argument).exists():
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.1)
        if what == "one":
            return [Clip(job.id, "tiny", shortest(moving_clip(5).motion))]
        clip = replace(moving_clip(int(argument), seed=int(job.id)), id=job.id, subject="somebody")
        if what == "nan":
            clip.motion.root_positions[2] = float("nan")
        return [clip, replace(clip, id=f"{job.id}+1")] if what == "two" else [clip]


def shortest(motion: Motion) -> Motion:
    """Its first frame."""
    per_frame = ("root_rotmats", "root_positions", "body_rotmats", "contacts", "timestamps")
    return replace(motion, **{name: getattr(motion, name)[:1] for name in per_frame})
