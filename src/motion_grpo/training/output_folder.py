"""The output folder of a training: whether it is free, and what an earlier run left there."""

import re
import shutil
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from motion_grpo.cards.models import CURVES_FILE, RESULTS
from motion_grpo.runs import LOG_FILE, RUN_FILE, SESSIONS_FILE

_TELLS = {RUN_FILE, LOG_FILE, *RESULTS.values()}
_OTHERS = {CURVES_FILE, SESSIONS_FILE, "README.md"}
"""Left by runs, but no sign of one."""


def prepare_output(args: TrainingArguments, *, resume: bool, overwrite: bool) -> None:
    """Sees to it that a run begins in a folder without another, or is meant to go on there.

    To be called by all processes before anything is written: the first one decides.

    Args:
        args: name the folder.
        resume: the run that lies there goes on.
        overwrite: the run that lies there is deleted; other files stay.

    Raises:
        ValueError: another run lies there and neither was asked for, or both were.
    """
    verdict: list[str | None] = [None]
    if args.process_index == 0:
        verdict = [_prepare(Path(args.output_dir), resume, overwrite)]
    [fault] = broadcast_object_list(verdict)
    if fault is not None:
        raise ValueError(fault)


def _prepare(folder: Path, resume: bool, overwrite: bool) -> str | None:
    """What is wrong, if anything."""
    if resume and overwrite:
        return f"Both --resume and --overwrite are set for {folder}; the run there can go on or be deleted: set one."
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    run = [path for path in present if path.name in _TELLS or re.fullmatch(r"checkpoint-\d+", path.name)]
    if not run or resume:
        return None
    if not overwrite:
        return (
            f"{folder} holds another run ({', '.join(path.name for path in run[:3])}); add --resume to go on with it, "
            "--overwrite to delete it, or name another --output_dir."
        )
    for path in [*run, *(path for path in present if path.name in _OTHERS)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return None
