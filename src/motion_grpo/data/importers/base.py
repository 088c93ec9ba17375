"""What an importer is: it lists jobs and converts each into clips."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from motion_grpo.data.clips import Clip
from motion_grpo.data.head_clip import HeadClip


@dataclass(frozen=True)
class Job:
    """One source file, or a part of one."""

    id: str
    """Unique among the jobs of an importer; names the file in reports."""
    path: Path
    split: str
    extra: dict[str, Any] = field(default_factory=dict)
    """What the importer wants to remember."""


@runtime_checkable
class Importer(Protocol):
    """One kind of data set. A frozen dataclass, picklable, whose ``repr`` tells all that its output depends on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Starts the names of the shards."""
        ...

    def jobs(self) -> list[Job]:
        """All source files, fast, in an order that never changes.

        Raises:
            FileNotFoundError, ValueError: the folder is not of this data set.
        """
        ...

    def convert(self, job: Job) -> list[Clip] | list[HeadClip]:
        """The clips of one file.

        Raises:
            ClipError: it is left out on purpose.
            Exception: it is broken; a ValueError that names the fault, or what the reader of the format raises.
        """
        ...
