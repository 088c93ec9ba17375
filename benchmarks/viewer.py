"""How soon the viewer's page of a minute of motion can be used: from opening it to a timeline that moves.

    python benchmarks/viewer.py [--seconds 60] [--export]

Drives a headless Chromium (software WebGL) over its debugging protocol. Prints seconds of the clock, and of processor
time of the browser and of this process: what an idle core would take.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from motion_grpo import Motion  # noqa: E402
from motion_grpo.motion import FPS  # noqa: E402
from motion_grpo.viz.viewer import Viewer, _free_port, export_scene  # noqa: E402
from tests.viz.chromium import Page, chromium  # noqa: E402

THUMB = "document.querySelector('[role=slider]')"
MOVED = f"+{THUMB}.getAttribute('aria-valuenow') > 0.5 * +{THUMB}.getAttribute('aria-valuemax')"
READY = "!!document.querySelector('canvas') && !!document.querySelector('.mantine-Slider-root')"


def minute(seconds: float) -> Motion:
    """A recorded walk, forth and back, for so long."""
    walk = Motion.load(ROOT / "examples" / "walk_turns.npz")
    count = round(seconds * FPS)
    there_and_back = torch.cat([torch.arange(len(walk)), torch.arange(len(walk)).flip(0)])
    frames = there_and_back.repeat(count // len(there_and_back) + 1)[:count]
    return Motion(
        root_rotmats=walk.root_rotmats[frames],
        root_positions=walk.root_positions[frames],
        body_rotmats=walk.body_rotmats[frames],
        betas=walk.betas,
        contacts=walk.contacts[frames],
        timestamps=torch.arange(count, dtype=torch.float64) / FPS,
    )


def processor_seconds() -> float:
    """Of this process and of all below it."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents, spent = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        spent[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / ticks

    def ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and parents[process] > 0 and ours(parents[process]))

    return sum(seconds for process, seconds in spent.items() if ours(process))


def measure(page: Page, url: str) -> None:
    """Opens a page, waits for its controls, and clicks on the timeline until it has moved."""
    started, spent = time.monotonic(), processor_seconds()

    def say(what: str) -> None:
        print(f"{what}: {time.monotonic() - started:.1f} s, processor {processor_seconds() - spent:.1f} s", flush=True)

    page.open(url)
    page.wait(READY)
    say("controls are there")
    while not page.evaluate(MOVED):
        page.click(".mantine-Slider-root", 0.7)
    say("the timeline moves")


def main() -> None:
    """Measures the page of the server, or the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--export", action="store_true", help="the one file instead of the page of the server")
    given = parser.parse_args()
    motion = minute(given.seconds)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile", (1280, 800)) as page:
        if given.export:
            path = Path(folder) / "scene.html"
            export_scene(path, {"walk": motion})
            print(f"{path.stat().st_size / 1e6:.1f} MB")
            measure(page, path.as_uri())
            return
        viewer = Viewer({"walk": motion}, port=_free_port())
        try:
            measure(page, viewer.url)
        finally:
            viewer.stop()


if __name__ == "__main__":
    main()
