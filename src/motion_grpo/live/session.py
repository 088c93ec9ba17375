"""What runs between a source and its sinks."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from motion_grpo.live.sinks import Sink
from motion_grpo.live.sources import Source
from motion_grpo.streaming import BodyPose, EgoMotionStream

LOGGER = logging.getLogger("motion_grpo.live")
_REMEMBERED = 30 * 600
"""Pushes whose durations are kept: ten minutes."""


@dataclass
class Report:
    """How a session went."""

    poses: int = 0
    """Poses of the head that came."""
    bodies: int = 0
    """Bodies that were given out."""
    push_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Of the last pushes that gave a body."""

    def milliseconds(self, quantile: float) -> float:
        """A quantile of the duration of a push; NaN before the first body."""
        return 1e3 * float(np.quantile(self.push_seconds, quantile)) if self.push_seconds else float("nan")


def run(
    source: Source,
    stream: EgoMotionStream,
    sinks: Mapping[str, Sink],
    *,
    seconds: float | int | None = None,
    on_body: Callable[[BodyPose, Report], None] | None = None,
) -> Report:
    """Pushes every pose of a source and hands every body to all sinks, until the source, or the time, ends.

    A sink that fails is told of in the log once, and asked again with the next body: the stream goes on.

    Args:
        source: of poses.
        stream: recovers the bodies.
        sinks: by what they are called in the log.
        seconds: at most so long; without an end when None.
        on_body: called after each body.
    """
    report, failing = Report(), set[str]()
    end = None if seconds is None else time.monotonic() + seconds
    for sample in source:
        if end is not None and time.monotonic() > end:
            break
        if sample is None:
            continue
        report.poses += 1
        begun = time.perf_counter()
        pose = stream.push(sample.T_world_cpf, sample.timestamp, sample.hands)
        if pose is None:
            continue
        report.push_seconds.append(time.perf_counter() - begun)
        report.bodies += 1
        for name, sink in sinks.items():
            _send(name, sink, pose, failing)
        if on_body is not None:
            on_body(pose, report)
    return report


def _send(name: str, sink: Sink, pose: BodyPose, failing: set[str]) -> None:
    try:
        sink.send(pose)
    except Exception as error:  # whatever happens to a receiver, the stream goes on
        if name not in failing:
            LOGGER.warning("%s cannot be reached (%s); the stream goes on.", name, error)
            failing.add(name)
    else:
        if name in failing:
            LOGGER.warning("%s is back.", name)
            failing.discard(name)
