"""Shows motions in a browser: ``motion-grpo view walk.npz --truth recorded.npz``."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from motion_grpo.cli.head_options import (
    Convention,
    DeviceCpf,
    DeviceGeneration,
    Fps,
    World,
    plain_messages,
    read_T_device_cpf,
)
from motion_grpo.cli.motion_input import Smplh, read_motion
from rich.console import Console

from motion_grpo import HeadTrajectory, load_trajectory
from motion_grpo.motion import check_output_path
from motion_grpo.trajectory import read_points
from motion_grpo.viz.stage import TRUTH
from motion_grpo.viz.viewer import PORT, Viewer, export_scene


def view(
    motions: Annotated[list[Path], typer.Argument(help="One to five motions (.npz) of one recording.")],
    trajectory: Annotated[Path | None, typer.Option(help="Head trajectory that they were recovered from.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Recorded motion; errors refer to it.")] = None,
    points: Annotated[Path | None, typer.Option(help="Point cloud of the room: MPS semidense_points.csv.gz.")] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Bodies beside each other at first.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write one .html that needs no server, and end.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = PORT,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page.")] = True,
    smplh: Smplh = None,
    convention: Convention = None,
    fps: Fps = None,
    world: World = None,
    device_generation: DeviceGeneration = None,
    T_device_cpf: DeviceCpf = None,
) -> None:
    """Show motions in the browser: bodies, head path, contacts, floor and errors on one timeline."""
    if export is not None:
        if export.suffix.lower() != ".html":
            raise ValueError(f"{export}: a scene is written as .html.")
        check_output_path(export)
    shown = {name: read_motion(path, smplh) for name, path in _named(motions).items()}
    if truth is not None:
        shown[TRUTH] = read_motion(truth, smplh)
    head: HeadTrajectory | None = None
    if trajectory is not None:
        with plain_messages():
            head = load_trajectory(
                trajectory,
                convention=convention,
                fps=fps,
                floor_height=next(iter(shown.values())).floor_height,
                world_uid=world,
                device=device_generation,
                T_device_cpf=read_T_device_cpf(T_device_cpf),
            )
    cloud = None if points is None else read_points(points)
    scene = {"trajectory": head, "points": cloud, "model_path": smplh, "side_by_side": side_by_side}
    console = Console()
    if export is not None:
        export_scene(export, shown, **scene)
        console.print(f"wrote {export}", markup=False, highlight=False)
        return
    viewer = Viewer(shown, port=port, **scene)
    console.print(f"{viewer.url} shows {', '.join(shown)}; Ctrl+C ends it", markup=False, highlight=False)
    if open_browser:
        webbrowser.open(viewer.url)
    try:
        viewer.run()
    except KeyboardInterrupt:
        viewer.stop()


def _named(paths: list[Path]) -> dict[str, Path]:
    """Paths by their stems, with the folder where two have the same."""
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else f"{path.parent.name} {path.stem}" for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("two of the motions have the same name; give each file once.")
    return dict(zip(names, paths, strict=True))


if __name__ == "__main__":
    typer.run(view)
