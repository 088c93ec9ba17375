"""Which recordings to train on: what the training scripts of this folder share."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

import datasets

from motion_grpo import Skeleton
from motion_grpo.data import (
    Clip,
    HeadWindows,
    MotionWindows,
    StreamedWindows,
    balancing_weights,
    is_mocap_pack,
    load_clips,
    load_motions,
    mirrored_clip,
    resample,
)


@dataclass
class DataArguments:
    """Which recordings to train on."""

    dataset_name: list[str] = field(
        metadata={"help": "Data sets of `motion-grpo data` (folders or Hub ids) or packs; several are joined."}
    )
    sources: list[str] | None = field(
        default=None, metadata={"help": "Only these data sets, e.g. cmu; all by default."}
    )
    exclude: list[str] = field(
        default_factory=list, metadata={"help": "Leave out clips whose id matches, e.g. 'cmu/05_*'."}
    )
    speeds: list[float] = field(
        default_factory=lambda: [1.0], metadata={"help": "Every clip is also played this many times as fast."}
    )
    mirrored: bool = field(
        default=False,
        metadata={"help": "Every clip is also there with left and right exchanged (EgoAllo's data)."},
    )
    heads_only: bool = field(
        default=False,
        metadata={"help": "Post-train on heads alone, of clips with a body or without, by rewards that need no truth."},
    )
    person_balance: float = field(
        default=0.0,
        metadata={"help": "Draw rare people more often: 0 as often as recorded, 1 all equally often."},
    )
    content_balance: float = field(default=0.0, metadata={"help": "Draw rare activities more often, likewise."})
    smplh: str | None = field(
        default=None,
        metadata={"help": "SMPL-H model.npz that the data set was imported with; the default body if unset."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read a data set while training; needs max_steps."})
    eval_clips: int = field(default=48, metadata={"help": "Clips of the validation split of each, evenly spread."})

    def __post_init__(self) -> None:
        if isinstance(self.dataset_name, str):  # as a YAML file may have it
            self.dataset_name = [self.dataset_name]
        in_memory = {"speeds": [1.0], "mirrored": False, "person_balance": 0.0, "content_balance": 0.0, "exclude": []}
        changed = [name for name, value in in_memory.items() if vars(self)[name] != value]
        if self.streaming and changed:
            raise ValueError(f"streaming reads clips as they come; leave {', '.join(changed)} at the default with it.")
        if self.heads_only and (self.streaming or changed):
            raise ValueError("heads_only cuts windows of heads as they were recorded; leave streaming and changes out.")
        if self.streaming and len(self.dataset_name) > 1:
            raise ValueError("streaming reads one data set; give one dataset_name, or turn streaming off.")


def skeleton(data: DataArguments) -> Skeleton | None:
    """The body that the data set's betas refer to."""
    return Skeleton.from_smplh(data.smplh) if data.smplh else None


def head_windows(data: DataArguments, length: int, seed: int) -> HeadWindows:
    """Windows of the heads of the train split."""
    if packs := list(filter(is_mocap_pack, data.dataset_name)):
        raise ValueError(f"heads_only reads data sets; turn the pack {packs[0]} into one (motion-grpo data pack).")
    rows = [load_motions(name, "train", sources=data.sources) for name in data.dataset_name]
    return HeadWindows(datasets.concatenate_datasets(rows), length, seed=seed)


def train_windows(data: DataArguments, length: int, seed: int) -> MotionWindows | StreamedWindows:
    """Windows of the train split: of clips in memory at every speed asked for, or of rows that stay on disk."""
    body = skeleton(data)
    if data.streaming:
        rows = load_motions(data.dataset_name[0], "train", sources=data.sources, streaming=True)
        return StreamedWindows(rows, length, seed=seed, skeleton=body)
    changed = data.exclude or data.mirrored or data.person_balance or data.content_balance
    as_recorded = data.speeds == [1.0] and not changed
    if as_recorded and not any(map(is_mocap_pack, data.dataset_name)):
        rows = [load_motions(name, "train", sources=data.sources) for name in data.dataset_name]
        return MotionWindows(datasets.concatenate_datasets(rows), length, seed=seed, skeleton=body)
    clips = _clips(data, "train")
    clips += [
        replace(clip, id=f"{clip.id}@{speed}", motion=resample(clip.motion, 30.0, speed))
        for speed in data.speeds
        if speed != 1.0
        for clip in clips
    ]
    if data.mirrored:
        clips += [mirrored_clip(clip) for clip in clips]
    weights = balancing_weights(
        [len(clip.motion) for clip in clips],
        [clip.subject or clip.source for clip in clips],
        [clip.content for clip in clips],
        person=data.person_balance,
        content=data.content_balance,
    )
    return MotionWindows(clips, length, seed=seed, weights=weights)


def val_clips(data: DataArguments) -> list[Clip]:
    """Clips to evaluate on."""
    return _clips(data, "val", limit=data.eval_clips)


def _clips(data: DataArguments, split: str, limit: int | None = None) -> list[Clip]:
    clips = [
        clip
        for name in data.dataset_name
        for clip in load_clips(name, split, sources=data.sources, limit=limit, skeleton=skeleton(data))
        if not any(fnmatch(clip.id, pattern) for pattern in data.exclude)
    ]
    if not clips:
        raise ValueError(f"No clip of the {split} split of {', '.join(data.dataset_name)} is left; check exclude.")
    return clips
