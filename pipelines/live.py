"""Bodies while the head moves: ``motion-grpo live osc --vmc 127.0.0.1``."""

import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer
from motion_grpo.cli.head_options import Convention, Fps, plain_messages
from rich.console import Console

from motion_grpo import EgoMotionPipeline, EgoMotionStream, load_trajectory
from motion_grpo.live.session import run
from motion_grpo.live.sinks import (
    VMC_PORT,
    VRCHAT_PORT,
    RecordingSink,
    Sink,
    ViewerSink,
    VmcSink,
    VrchatSink,
    WebSocketSink,
)
from motion_grpo.live.sources import OSC_PORT, OpenXrSource, OscSource, RecordingSource, Source
from motion_grpo.streaming import StreamConfig
from motion_grpo.trajectory.conventions import named_convention

_DEFAULT = StreamConfig()


def live(
    source: Annotated[
        str, typer.Argument(help="A head trajectory (file), played in real time; osc or osc:PORT; openxr.")
    ],
    vmc: Annotated[str | None, typer.Option(help="HOST[:PORT] of VSeeFace, Warudo, VirtualMotionCapture.")] = None,
    vrchat: Annotated[str | None, typer.Option(help="HOST[:PORT] of VRChat, for its OSC trackers.")] = None,
    websocket: Annotated[int | None, typer.Option(min=1, max=65535, help="Port that sends bodies as JSON.")] = None,
    view: Annotated[bool, typer.Option("--view", help="Show the body on a page.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 8080,
    record: Annotated[Path | None, typer.Option(help="Write the motion at the end (.npz, .bvh, ...).")] = None,
    lag: Annotated[int, typer.Option(min=0, max=60, help="Frames of 1/30 s that the body comes later.")] = _DEFAULT.lag,
    steps: Annotated[int, typer.Option(min=1, max=100, help="Sampling steps.")] = _DEFAULT.num_inference_steps,
    stature: Annotated[float | None, typer.Option(help="The wearer's height, meters.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    checkpoint: Annotated[str, typer.Option(help="Pipeline: a folder, a Hub id or a shipped checkpoint.")] = "base",
    floor_height: Annotated[float | None, typer.Option(help="z of the floor, meters; of a file as it says.")] = None,
    listen: Annotated[str, typer.Option(help="Address to receive OSC at; 0.0.0.0: from other machines.")] = "127.0.0.1",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Play a file as fast as it goes.")] = False,
    convention: Convention = None,
    fps: Fps = None,
) -> None:
    """Recover the body while the head moves, for avatars, a page or a file; Ctrl+C ends it."""
    logging.basicConfig(format="%(message)s")
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with ExitStack() as ends:
        poses = _source(source, convention, fps, floor_height, listen, fast)
        ends.callback(poses.close)
        pipeline = EgoMotionPipeline.from_pretrained(checkpoint)
        config = StreamConfig(lag=lag, num_inference_steps=steps, floor_height=poses.floor_height)
        stream = EgoMotionStream(pipeline, config, seed=seed, stature=stature)
        sinks: dict[str, Sink] = {}
        body = (pipeline.skeleton, poses.floor_height)
        makers: dict[str, Callable[[], Sink] | None] = {
            f"VMC at {vmc}": vmc and (lambda: VmcSink(*_address(vmc, VMC_PORT), *body)),
            f"VRChat at {vrchat}": vrchat and (lambda: VrchatSink(*_address(vrchat, VRCHAT_PORT), *body)),
            f"WebSocket at {websocket}": websocket and (lambda: WebSocketSink("127.0.0.1", websocket)),
            "The page": (lambda: ViewerSink(port, *body)) if view else None,
            f"{record}": record and (lambda: RecordingSink(record, *body)),
        }
        for name, make in makers.items():
            if make:
                sinks[name] = make()
                ends.callback(sinks[name].close)
        if not sinks:
            raise ValueError("Nobody would get the bodies; add --view, --vmc, --vrchat, --websocket or --record.")
        say(f"{source} goes to {', '.join(sinks)}; the body is {1e3 * stream.delay:.0f} ms behind; Ctrl+C ends it")
        if view:
            say(sinks["The page"].url)
        report = None
        with suppress(KeyboardInterrupt):
            report = run(poses, stream, sinks, seconds=seconds)
        if report is not None:
            say(
                f"{report.bodies} bodies of {report.poses} poses, {stream.clock.left_out} left out, "
                f"{stream.clock.restarts} restarts; a push took {report.milliseconds(0.5):.1f} ms, one in a hundred "
                f"{report.milliseconds(0.99):.1f} or more"
            )


def _source(
    name: str, convention: str | None, fps: float | None, floor_height: float | None, listen: str, fast: bool
) -> Source:
    kind, _, port = name.partition(":")
    if kind == "openxr":
        return OpenXrSource()
    if kind == "osc":
        if port and not port.isdigit():
            raise ValueError(f"{name}: the port must be a number, as in osc:{OSC_PORT}.")
        axes = named_convention(convention or "cpf")
        return OscSource(int(port or OSC_PORT), listen, axes, floor_height or 0.0)
    with plain_messages():
        trajectory = load_trajectory(name, convention=convention, fps=fps, floor_height=floor_height)
    return RecordingSource(trajectory, in_real_time=not fast)


def _address(text: str, port: int) -> tuple[str, int]:
    host, _, given = text.partition(":")
    if given and not (given.isdigit() and 0 < int(given) < 65536):
        raise ValueError(f"{text}: the port must be a number from 1 to 65535, as in {host}:{port}.")
    return host, int(given or port)


if __name__ == "__main__":
    typer.run(live)
