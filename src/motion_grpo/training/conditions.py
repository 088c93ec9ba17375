"""The conditions of a rollout: windows of recorded motion by their number, each repeated for its group."""

from collections.abc import Iterator

from torch.utils.data import Dataset
from trl.trainer.utils import RepeatSampler

from motion_grpo.data import HeadWindows, MotionWindows
from motion_grpo.seeding import generator_of


class NumberedConditions(Dataset):
    """The numbers of a data set's windows. TRL's sampler repeats a number G times; the window itself is read once."""

    def __init__(self, windows: MotionWindows | HeadWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> int:
        return index


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that is a function of seed and epoch, so that a resumed run goes on in it."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator = generator_of(self.seed, "order", self.epoch)
        return super().__iter__()


def check_windows(windows: Dataset, length: int, needed: int) -> MotionWindows | HeadWindows:
    """The windows, if rollouts can be drawn for them.

    Args:
        windows: a data set.
        length: frames that the settings say.
        needed: conditions of a rollout.

    Raises:
        ValueError: no windows with numbers and a seed, of another length than the settings say, or too few.
    """
    if not isinstance(windows, MotionWindows | HeadWindows):
        raise ValueError(
            f"train_dataset is a {type(windows).__name__}; post-training returns to its conditions by number and needs "
            "MotionWindows: leave streaming off."
        )
    if windows.length != length:
        raise ValueError(
            f"train_dataset has windows of {windows.length} frames, but window is {length}; make them the same."
        )
    if windows.random and windows.seed is None:
        raise ValueError(
            "train_dataset draws its windows without a seed, so members of a group could have different ones; give "
            "MotionWindows a seed."
        )
    if len(windows) < needed:
        raise ValueError(
            f"train_dataset has {len(windows)} windows with a recorded body, and a rollout needs {needed} conditions; "
            "import more, or make the batch smaller. Rows of a head without a body count in HeadWindows alone."
        )
    return windows
