"""Clips of a take: retargeted, cut, checked."""

from motion_grpo.data.clips import Clip, ClipError
from motion_grpo.data.importers.base import Job
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.motion import FPS
from motion_grpo.retargeting.cutting import cut
from motion_grpo.retargeting.retarget import retarget
from motion_grpo.retargeting.rigs import Rig


def clips_of(
    job: Job,
    source: SourceMotion,
    rig: Rig,
    min_seconds: float,
    *,
    source_name: str,
    license: str,
    subject: str = "",
    content: str = "",
    stature: float | None = None,
    betas0: float | None = None,
) -> list[Clip]:
    """Retargets a recording and cuts it into clips; ids of several pieces end in ``+0``, ``+1`` and so on.

    Raises:
        ClipError: nothing of ``min_seconds`` is left.
        ValueError: as :func:`retarget`.
    """
    seconds = len(source) / source.fps
    if seconds < min_seconds:
        raise ClipError(f"shorter than {min_seconds:g} s: {seconds:.2f} s ({len(source)} frames)")
    motions = cut(retarget(source, rig, stature=stature, betas0=betas0), int(min_seconds * FPS))
    if not motions:
        raise ClipError(f"no piece of {min_seconds:g} s is left after cutting at breaks")
    return [
        Clip(
            id=job.id if len(motions) == 1 else f"{job.id}+{number}",
            source=source_name,
            motion=motion,
            subject=subject,
            content=content,
            split=job.split,
            license=license,
        )
        for number, motion in enumerate(motions)
    ]
