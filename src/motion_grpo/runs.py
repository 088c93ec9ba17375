"""The folder of a training run: its log, its checkpoints, and the sessions in which it was trained."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from motion_grpo.files import write_text

LOG_FILE = "training_log.json"
RUN_FILE = "run.json"
"""What was resolved when the run started; written once."""
SESSIONS_FILE = "sessions.jsonl"
"""One line each time the run was started or resumed; lines are added and never changed."""
TRAINER_STATE_FILE = "trainer_state.json"
"""transformers writes it last into a checkpoint. (Its own constant costs the import of the whole Trainer.)"""


def newest_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint of a run that was written to its end; None where there is none.

    A run can be killed while it writes one. The trainer's state is what is written last, so a checkpoint whose state
    cannot be read is passed over for the one before.
    """
    numbered = [(re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in Path(output_dir).glob("*")]
    for _, folder in sorted(((int(match[1]), folder) for match, folder in numbered if match), reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_FILE).read_text())
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def add_session(folder: Path, facts: Mapping[str, Any]) -> None:
    """Notes in a folder's sessions that a run starts, or goes on, now.

    A run may be killed without a word, so how long a session lasted is told by the one after it: until it saved the
    checkpoint from which that one goes on. Later work is lost, and not counted.

    Args:
        folder: of the run.
        facts: of this session.
    """
    sessions = read_sessions(folder)
    session: dict[str, Any] = {"started": _text(datetime.now(UTC)), "from_step": 0, "previous_ended": None}
    if sessions and (checkpoint := newest_checkpoint(folder)) is not None:
        state = Path(checkpoint) / TRAINER_STATE_FILE
        session["from_step"] = json.loads(state.read_text())["global_step"]
        session["previous_ended"] = _text(datetime.fromtimestamp(state.stat().st_mtime, UTC))
    lines = [*sessions, session | dict(facts)]
    write_text(folder / SESSIONS_FILE, "".join(json.dumps(line, default=str) + "\n" for line in lines))


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The sessions of a run, the first one first; none where the folder knows of none."""
    path = folder / SESSIONS_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def training_seconds(
    sessions: Sequence[Mapping[str, Any]], log_history: Sequence[Mapping[str, Any]], *, running: bool
) -> float | None:
    """Wall time of a training over all its sessions; None where nothing tells it.

    Args:
        sessions: of :func:`read_sessions`.
        log_history: of the trainer's state; says how long the latest session took, if that has ended.
        running: whether a session that has not said so goes on, and counts until now.
    """
    logged = [float(entry["train_runtime"]) for entry in log_history if "train_runtime" in entry]
    if not sessions:
        return sum(logged) if logged else None
    starts = [datetime.fromisoformat(session["started"]) for session in sessions]
    total = 0.0
    for start, following in zip(starts, sessions[1:], strict=False):
        if following["previous_ended"] is not None:
            total += max(0.0, (datetime.fromisoformat(following["previous_ended"]) - start).total_seconds())
    if logged:
        return total + logged[-1]
    return total + (datetime.now(UTC) - starts[-1]).total_seconds() if running else None


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
