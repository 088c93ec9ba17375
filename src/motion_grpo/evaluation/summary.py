"""What the scores of a split come to: means with intervals, of all clips, by source and by content."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from motion_grpo.data import Clip
from motion_grpo.evaluation.clips import ClipScores, ClipWindow, whole_clip
from motion_grpo.evaluation.statistics import summarize, summarize_samples

Key = tuple[str, str, str, str]
"""Split, system, source, clip."""
NOT_STATED = "(not stated)"

_LABELS: dict[str, Callable[[Clip], str]] = {
    "source": lambda clip: clip.source,
    "content": lambda clip: clip.content or NOT_STATED,
}


def key_of(split: str, system: str, clip: Clip) -> Key:
    """Where the scores of a system on a clip are on record."""
    return split, system, clip.source, clip.id


def summarize_split(
    split: str, clips: list[Clip], whole: list[Clip], systems: list[str], records: Mapping[Key, ClipScores]
) -> dict[str, Any]:
    """Sizes, every system's metrics and how its samples differ, and the metrics by source and by content.

    Args:
        split: its name.
        clips: what was scored: the split's clips, or their windows.
        whole: the clips that windows were cut from.
        systems: their names.
        records: scores of every system on every clip.
    """

    def of(members: list[Clip]) -> dict[str, Any]:
        found, clusters = {}, [whole_clip(clip) for clip in members]
        for name in systems:
            scores = [records[key_of(split, name, clip)] for clip in members]
            metrics = {m: asdict(estimate) for m, estimate in summarize(scores, clusters).items()}
            found[name] = {"samples_per_clip": len(scores[0].metrics["mpjpe"]), "metrics": metrics}
        size = {"clips": len(set(clusters)), "frames": sum(len(clip.motion) for clip in members)}
        if isinstance(members[0], ClipWindow):
            size["windows"] = len(members)
        return size | {"systems": found}

    summary, clusters = of(clips), [whole_clip(clip) for clip in clips]
    for name, system in summary["systems"].items():
        samples = summarize_samples([records[key_of(split, name, clip)] for clip in clips], clusters)
        system["samples"] = None if samples is None else asdict(samples)
    if isinstance(clips[0], ClipWindow):
        summary["frames_left_out"] = sum(len(clip.motion) for clip in whole) - summary["frames"]
        summary["clips_left_out"] = len(whole) - summary["clips"]
    summary["by"] = {}
    for kind, label in _LABELS.items():
        names = sorted({label(clip) for clip in clips})
        if len(names) > 1 or (kind == "content" and names != [NOT_STATED]):
            summary["by"][kind] = {name: of([clip for clip in clips if label(clip) == name]) for name in names}
    return summary
