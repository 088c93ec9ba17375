"""A page that shows one body as it is recovered."""

import threading
from contextlib import redirect_stdout
from io import StringIO

import torch

from motion_grpo.motion import Motion
from motion_grpo.viz.stage import Stage
from motion_grpo.viz.viewer import HOST, start_server

_RESHAPED = 0.05
"""Change of a beta after which the surface is made anew: half a centimeter of stature."""
_NAME = "live"


class LivePage:
    """A server with a body that moves when it is told to.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, port: int) -> None:
        self._server = start_server(port)
        self._lock = threading.Lock()
        self._stage: Stage | None = None
        self._betas = torch.zeros(16)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self._server.get_port()}"

    def show(self, motion: Motion) -> None:
        """Shows the first frame of a motion."""
        with self._lock, self._server.atomic():
            if self._stage is None or (motion.betas - self._betas).abs().max() > _RESHAPED:
                self._stage, self._betas = Stage(self._server, {_NAME: motion}), motion.betas
            else:
                self._stage.put(_NAME, motion)

    def stop(self) -> None:
        """Ends the server."""
        with redirect_stdout(StringIO()):
            self._server.stop()
