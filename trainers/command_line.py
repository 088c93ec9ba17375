"""The command line of the training scripts."""

import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from trl import TrlParser


class TrainingParser(TrlParser):
    """TRL's parser, with the presets of the package by their name: ``--config grpo_small.yaml``."""

    def parse_args_and_config(self, args: Iterable[str] | None = None, **options: Any) -> tuple[Any, ...]:
        """Parses the command line (or ``args``) over the file after ``--config``."""
        words = list(sys.argv[1:] if args is None else args)
        if "--config" in words[:-1]:
            value = words.index("--config") + 1
            words[value] = str(config_path(words[value]))
        return super().parse_args_and_config(words, **options)


def config_path(name: str) -> Path:
    """The file of this name, else the preset that is installed under it.

    Raises:
        FileNotFoundError: neither is there.
    """
    path, presets = Path(name), Path(str(resources.files("motion_grpo.configs")))
    if path.is_file():
        return path
    names = sorted(preset.name for preset in presets.glob("*.yaml"))
    if name in names:
        return presets / name
    raise FileNotFoundError(f"--config is {name!r}: there is no such file, and the presets are {', '.join(names)}.")
