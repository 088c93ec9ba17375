"""The viewer: a page with a timeline from a local server, or one file that needs none (viser)."""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path

import viser
from PIL import Image

from motion_grpo.files import write_text
from motion_grpo.motion import FPS, Motion
from motion_grpo.viz.stage import Stage

HOST = "127.0.0.1"
PORT = 8080
_SPEEDS = {"0.25x": 0.25, "0.5x": 0.5, "1x": 1.0, "2x": 2.0, "4x": 4.0}
_LAYOUTS = ("overlaid", "side by side")
_SCREENSHOT = (1080, 1920)  # height, width


class Viewer:
    """A server with a stage, and the controls beside it: play, pause, speed, layout, camera, screenshot, numbers."""

    def __init__(self, motions: Mapping[str, Motion], *, port: int = PORT, side_by_side: bool = False, **shown) -> None:
        """Starts the server; it answers on this machine only.

        Args:
            motions: as for :class:`~motion_grpo.viz.stage.Stage`.
            port: of the page.
            side_by_side: how the bodies stand at first.
            shown: further arguments of the stage.

        Raises:
            ValueError: as the stage.
            OSError: the port is in use.
        """
        self._server = start_server(port)
        self.stage = Stage(self._server, motions, **shown)
        self._lock = threading.Lock()
        self._moment = 0.0
        self._followed = self.stage.focus(0)
        self._add_controls(side_by_side)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self._server.get_port()}"

    def run(self) -> None:
        """Plays until interrupted."""
        before = time.monotonic()
        while True:
            time.sleep(1 / FPS)
            now = time.monotonic()
            self.advance(now - before)
            before = now

    def advance(self, seconds: float) -> None:
        """Moves the timeline on by that much of the clock, at the speed that is set and unless paused; it repeats."""
        if not self._playing.value:
            return
        if int(self._moment) != self._slider.value:  # somebody moved it
            self._moment = float(self._slider.value)
        self._moment = (self._moment + seconds * FPS * _SPEEDS[self._speed.value]) % len(self.stage.times)
        if int(self._moment) != self._slider.value:
            self._slider.value = int(self._moment)

    def stop(self) -> None:
        """Ends the server."""
        _stop(self._server)

    def _add_controls(self, side_by_side: bool) -> None:
        gui = self._server.gui
        self._playing = gui.add_checkbox("play", True)
        self._slider = gui.add_slider("frame", 0, max(1, len(self.stage.times) - 1), 1, 0)
        self._speed = gui.add_dropdown("speed", tuple(_SPEEDS), initial_value="1x")
        layout = gui.add_dropdown("bodies", _LAYOUTS, initial_value=_LAYOUTS[side_by_side])
        self._follow = gui.add_checkbox("follow with the camera", False)
        shown = {name: gui.add_checkbox(f"show {name}", True) for name in self.stage.names}
        screenshot = gui.add_button("screenshot")
        self._read_out = gui.add_markdown("")
        self._slider.on_update(lambda _: self._show())
        layout.on_update(lambda _: self._arrange(layout.value))
        for name, box in shown.items():
            box.on_update(lambda event, name=name: self.stage.set_visible(name, event.target.value))
        screenshot.on_click(_send_screenshot)
        self._arrange(layout.value)

    def _arrange(self, layout: str) -> None:
        self.stage.arrange(layout == _LAYOUTS[1])
        self._show()

    def _show(self) -> None:
        moment = min(int(self._slider.value), len(self.stage.times) - 1)
        with self._lock, self._server.atomic():
            self.stage.show(moment)
            self._read_out.content = self.stage.read_out(moment)
            focus = self.stage.focus(moment)
            step, self._followed = (focus - self._followed) * (1, 1, 0), focus
        if self._follow.value and step.any():
            for client in self._server.get_clients().values():
                client.camera.position = client.camera.position + step


def export_scene(path: Path, motions: Mapping[str, Motion], *, side_by_side: bool = False, **shown) -> None:
    """Writes the scene as one HTML file with its own timeline, which opens from disk and asks nobody for anything.

    Args:
        path: an ``.html``.
        motions: as for :class:`~motion_grpo.viz.stage.Stage`.
        side_by_side: how the bodies stand.
        shown: further arguments of the stage.

    Raises:
        ValueError: as the stage.
    """
    server = start_server(_free_port())
    try:
        stage = Stage(server, motions, **shown)
        stage.arrange(side_by_side)
        serializer = server.get_scene_serializer()
        for moment in range(len(stage.times)):
            stage.show(moment)
            serializer.insert_sleep(1 / FPS)
        write_text(path, serializer.as_html())
    finally:
        _stop(server)


def write_html(motion: Motion, path: Path, *, model_path: str | Path | None = None) -> None:
    """Writes one motion as :func:`export_scene` does.

    Args:
        model_path: licensed SMPL-H or SMPL-X file whose surface is shown; the mannequin when None.
    """
    export_scene(path, {path.stem: motion}, model_path=model_path)


def start_server(port: int) -> viser.ViserServer:
    """A server for this machine alone.

    Raises:
        OSError: the port is in use.
    """
    # viser takes the next port when one is taken, and says so only in its own banner.
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise OSError(f"port {port} is in use; give another one with --port.")
    with redirect_stdout(StringIO()):  # its banner
        server = viser.ViserServer(HOST, port, label="motion-grpo", verbose=False)
    server.gui.configure_theme(control_layout="collapsible")
    return server


def _stop(server: viser.ViserServer) -> None:
    with redirect_stdout(StringIO()):
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _send_screenshot(event: viser.GuiEvent) -> None:
    assert event.client is not None  # who pressed the button
    height, width = _SCREENSHOT
    file = BytesIO()
    Image.fromarray(event.client.get_render(height, width)).save(file, format="PNG")
    event.client.send_file_download("motion-grpo.png", file.getvalue())
