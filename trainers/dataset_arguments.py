"""Which recordings to train on: what the training scripts of this folder share."""

from dataclasses import dataclass, field, replace

from motion_grpo import Skeleton
from motion_grpo.data import Clip, MotionWindows, StreamedWindows, is_mocap_pack, load_clips, load_motions, resample


@dataclass
class DataArguments:
    """Which recordings to train on."""

    dataset_name: str = field(metadata={"help": "Data set of `motion-grpo data` (folder or Hub id), or a pack."})
    sources: list[str] | None = field(
        default=None, metadata={"help": "Only these data sets, e.g. cmu; all by default."}
    )
    speeds: list[float] = field(
        default_factory=lambda: [1.0], metadata={"help": "Every clip is also played this many times as fast."}
    )
    smplh: str | None = field(
        default=None,
        metadata={"help": "SMPL-H model.npz that the data set was imported with; the default body if unset."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read a data set while training; needs max_steps."})
    eval_clips: int = field(default=48, metadata={"help": "Clips of the validation split, evenly spread."})


def skeleton(data: DataArguments) -> Skeleton | None:
    """The body that the data set's betas refer to."""
    return Skeleton.from_smplh(data.smplh) if data.smplh else None


def train_windows(data: DataArguments, length: int, seed: int) -> MotionWindows | StreamedWindows:
    """Windows of the train split: of clips in memory at every speed asked for, or of rows that stay on disk."""
    body = skeleton(data)
    original = data.speeds == [1.0]
    if data.streaming:
        if not original:
            raise ValueError("speeds needs the clips in memory; leave it at [1.0] with streaming.")
        rows = load_motions(data.dataset_name, "train", sources=data.sources, streaming=True)
        return StreamedWindows(rows, length, seed=seed, skeleton=body)
    if original and not is_mocap_pack(data.dataset_name):
        rows = load_motions(data.dataset_name, "train", sources=data.sources)
        return MotionWindows(rows, length, seed=seed, skeleton=body)
    clips = load_clips(data.dataset_name, "train", sources=data.sources, skeleton=body)
    faster = [
        replace(clip, id=f"{clip.id}@{speed}", motion=resample(clip.motion, 30.0, speed))
        for speed in data.speeds
        if speed != 1.0
        for clip in clips
    ]
    return MotionWindows(clips + faster, length, seed=seed)


def val_clips(data: DataArguments) -> list[Clip]:
    """Clips to evaluate on."""
    limit = data.eval_clips
    return load_clips(data.dataset_name, "val", sources=data.sources, limit=limit, skeleton=skeleton(data))
