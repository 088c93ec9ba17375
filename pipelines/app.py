"""A page to try it in: upload a head trajectory or pick an example, look at the body in 3-D, download it in any format.

Runs on a CPU, as a Space of the Hub (tools/build_space.py makes its folder) and locally: ``motion-grpo demo --open``.
"""

import html
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from motion_grpo.cli.head_options import in_options
from motion_grpo.cli.sampling_options import guidance_settings

from motion_grpo import EgoMotionPipeline, Motion, load_trajectory
from motion_grpo.motion.formats import FORMATS, numbered
from motion_grpo.viz.stage import TRUTH
from motion_grpo.viz.viewer import export_scene

DEVICES: dict[str, dict[str, str]] = {
    "poses of the eyes, z up (CPF)": {},
    "Project Aria Gen 1, Digital Twin": {"device": "gen1"},
    "Project Aria Gen 2": {"device": "gen2"},
    "Quest, OpenXR, WebXR, Vision Pro": {"convention": "openxr"},
    "Unity": {"convention": "unity"},
    "iPhone or iPad, landscape (ARKit)": {"convention": "arkit"},
    "Unreal": {"convention": "unreal"},
    "ROS: x forward, z up": {"convention": "ros"},
    "camera in a z-up world (SLAM, TUM)": {"convention": "camera"},
    "something else, in words": {},
}
IN_WORDS = list(DEVICES)[-1]
GUIDANCE = {
    "none": (None, False),
    "standing feet stand": ("no_hands", False),
    "standing feet stand, and nothing sinks into the floor": ("no_hands", True),
}
EXAMPLES = {
    "a walk that turns around twice (11 s)": "walk_turns",
    "a brisk walk (5 s)": "brisk_walk",
    "looking around (10 s)": "look_around",
}
MAX_SECONDS = 180
"""What a shared machine without a GPU recovers while somebody waits."""
_SCENE_HEIGHT = 560
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
_INTRODUCTION = """# Full-body motion from a head trajectory

A headset, glasses or a SLAM system know where the head is; a diffusion model fills in the body. From the head alone
arms are a guess.
"""


class Recoverer:
    """What the page does, with one pipeline for everybody."""

    def __init__(self, examples: Path) -> None:
        self.examples = examples
        self.pipe = EgoMotionPipeline.from_pretrained()
        self.pipe.set_progress_bar_config(disable=True)

    def recover(
        self,
        upload: str | None,
        example: str | None,
        device: str,
        axes: str | None,
        floor: str | None,
        stature: str | None,
        samples: int,
        steps: int,
        guidance: str,
        seed: int,
    ) -> tuple[list[Motion], str, str]:
        """The motions, the scene as HTML, and what there is to say.

        Raises:
            gradio.Error: bad input, in the library's own sentence.
        """
        given = (upload, example, device, axes, floor, stature, samples, steps, guidance, seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                motions, scene, said = self._recover(*given)
            except (ValueError, OSError) as error:
                raise gr.Error(in_options(str(error)), duration=None) from error
        told = dict.fromkeys(in_options(str(one.message)) for one in caught if one.category is UserWarning)
        return motions, scene, "\n\n".join([said, *(f"**Look at**: {message}" for message in told)])

    def _recover(
        self, upload, example, device, axes, floor, stature, samples, steps, guidance, seed
    ) -> tuple[list[Motion], str, str]:
        truth = None
        if upload is not None:
            trajectory = load_trajectory(upload, floor_height=_meters(floor, "Floor height"), **_options(device, axes))
        elif example is not None:
            trajectory = load_trajectory(self.examples / f"{EXAMPLES[example]}.csv")
            truth = Motion.load(self.examples / f"{EXAMPLES[example]}.npz")
        else:
            raise ValueError("Upload a trajectory, or pick an example.")
        if trajectory.duration > MAX_SECONDS:
            raise ValueError(
                f"The recording is {trajectory.duration:.0f} s long, and this page takes {MAX_SECONDS} s: cut it, or "
                "run motion-grpo recover on a machine of your own."
            )
        mode, keep_above = GUIDANCE[guidance]
        started = time.perf_counter()
        motions = self.pipe(
            trajectory,
            num_samples=samples,
            num_inference_steps=steps,
            guidance=guidance_settings(mode, False, keep_above),
            stature=_meters(stature, "Stature"),
            generator=torch.Generator().manual_seed(seed),
        ).motions
        seconds = time.perf_counter() - started
        said = (
            f"{trajectory.duration:.1f} s, axes: {trajectory.source_frame}; floor at {trajectory.floor_height:.2f} m "
            f"({trajectory.floor_source}); recovered in {seconds:.1f} s."
        )
        return motions, _scene(motions, truth), said

    def export(self, motions: list[Motion] | None, suffix: str) -> list[str]:
        """Files of the motions in one format.

        Raises:
            gradio.Error: nothing was recovered yet.
        """
        if not motions:
            raise gr.Error("Recover a motion first.")
        folder = Path(tempfile.mkdtemp(prefix="motion-grpo-"))
        path = folder / f"motion{suffix}"
        paths = [path] if len(motions) == 1 else [numbered(path, number) for number in range(len(motions))]
        return [str(motion.save(place)) for motion, place in zip(motions, paths, strict=True)]


def _meters(text: str | None, what: str) -> float | None:
    """A number that was typed; None where nothing was."""
    try:
        return float(text.replace(",", ".")) if text and text.strip() else None
    except ValueError as error:
        raise ValueError(f"{what} must be a number of meters, got {text!r}.") from error


def _options(device: str, axes: str | None) -> dict[str, Any]:
    if device != IN_WORDS:
        return DEVICES[device]
    if not axes or not axes.strip():
        raise ValueError("Say in words where the axes point: WORLD / HEAD, such as right up back / right up back.")
    return {"convention": axes}


def _scene(motions: list[Motion], truth: Motion | None) -> str:
    """The viewer's page in a frame of its own."""
    shown = {f"sample {number}" if len(motions) > 1 else "recovered": motion for number, motion in enumerate(motions)}
    if truth is not None:
        shown[TRUTH] = truth
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.html"
        export_scene(path, shown)
        page = html.escape(path.read_text(), quote=True)
    style = f"width:100%;height:{_SCENE_HEIGHT}px;border:0"
    return f'<iframe title="the body in 3-D" srcdoc="{page}" style="{style}"></iframe>'


def build(examples: Path) -> gr.Blocks:
    """The page.

    Args:
        examples: folder with the recordings of the repository's ``examples/``.
    """
    recoverer = Recoverer(examples)
    steps = recoverer.pipe.config["num_inference_steps"]
    with gr.Blocks(title="motion-grpo", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(_INTRODUCTION)
        motions = gr.State()
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                example = gr.Dropdown(list(EXAMPLES), value=list(EXAMPLES)[1], label="An example")
                upload = gr.File(
                    label="or a trajectory of yours: CSV, TUM, EuRoC, npz, Aria MPS",
                    file_types=[".csv", ".txt", ".tum", ".npz", ".gz"],
                    type="filepath",
                    height=150,
                )
                device = gr.Dropdown(list(DEVICES), value=next(iter(DEVICES)), label="It comes from")
                axes = gr.Textbox(
                    label="Axes in words, of the world / of the head",
                    placeholder="right up back / right up back",
                    visible=False,
                )
                with gr.Row():
                    floor = gr.Textbox(label="Floor height, m", placeholder="found")
                    stature = gr.Textbox(label="Stature, m", placeholder="guessed")
                guidance = gr.Dropdown(list(GUIDANCE), value=next(iter(GUIDANCE)), label="Guidance")
                with gr.Accordion("Sampling", open=False):
                    samples = gr.Slider(1, 4, value=1, step=1, label="Samples")
                    count = gr.Slider(1, 30, value=steps, step=1, label="Steps")
                    seed = gr.Number(value=0, label="Seed", precision=0)
                run = gr.Button("Recover", variant="primary", elem_id="recover")
            with gr.Column(scale=3):
                scene = gr.HTML(elem_id="scene", min_height=_SCENE_HEIGHT)
                said = gr.Markdown(elem_id="said")
                with gr.Row():
                    suffix = gr.Dropdown(list(FORMATS), value=".glb", label="Download as", elem_id="suffix")
                    export = gr.Button("Make the file", elem_id="export")
                files = gr.File(label="Files", interactive=False, elem_id="files", file_count="multiple")
        device.change(lambda name: gr.update(visible=name == IN_WORDS), device, axes, show_progress="hidden")
        given = [upload, example, device, axes, floor, stature, samples, count, guidance, seed]
        run.click(recoverer.recover, given, [motions, scene, said], concurrency_limit=1, api_name="recover")
        export.click(recoverer.export, [motions, suffix], files, api_name="export")
    return page


def serve(examples: Path, port: int, *, host: str = "127.0.0.1", open_browser: bool = True, block: bool = True) -> str:
    """Serves the page until interrupted (or, if told so, beside the caller), and returns its address.

    Raises:
        OSError: the port is in use.
    """
    _, url, _ = build(examples).launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=not block,
        share=False,
        ssr_mode=False,
        theme=gr.themes.Default(**_FONTS),
        footer_links=[],
    )
    return url
