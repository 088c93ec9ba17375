"""The command ``motion-grpo``: collects the scripts of this folder."""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import Annotated, NamedTuple

import typer
from motion_grpo.cli.help_examples import epilog

from motion_grpo.extras import extra


class Command(NamedTuple):
    """What can be said of a command without importing its module."""

    summary: str
    extra: str | None = None
    """What has to be installed for it, beyond what recovering takes."""


COMMANDS = {
    "recover": Command("Recover full-body motion from a head trajectory."),
    "view": Command(
        "Show motions in the browser: bodies, head path, contacts, floor and errors on one timeline.", extra="view"
    ),
    "live": Command("Recover the body while the head moves, for avatars, a page or a file; Ctrl+C ends it."),
    "export": Command("Write a motion for Blender, game engines, avatars, the web, video or tables."),
    "export-onnx": Command(
        "Write a pipeline as ONNX: encoder, denoising step, body, and a schedule.",
        extra="onnx",
    ),
    "compare": Command("Say how far two motions of one recording lie apart, and draw both."),
    "info": Command("Say what a file is, which way is up, how long it is, and what would be done with it."),
    "score": Command("Say how plausible a motion is: 0 is made up, 1 is real."),
    "demo": Command("Recover the example recordings and draw them, or serve a page to try it in."),
    "evaluate": Command("Score recovered motion against recordings.", extra="data"),
    "evaluate-critic": Command("Compare perceptual models: accuracy on pairs, artefacts, cost.", extra="train"),
    "data": Command("Import motion data into one schema, to train on and to share.", extra="data"),
    "plot-run": Command("Draw rewards, advantages, diversity and evaluations of a GRPO run over its steps."),
}

_EXAMPLES = """Examples:

  motion-grpo info head.csv

  motion-grpo recover head.csv -o walk.npz

  motion-grpo recover quest.csv -o walk.glb --convention openxr --floor-height 0

  motion-grpo view walk.npz

  motion-grpo data bvh FOLDER --output DATA

motion-grpo COMMAND --help says more of each."""


DEBUG = "--debug"
"""Taken out of the command line before it is parsed, so that it may stand anywhere."""


def make_app(asked: str | None = None) -> typer.Typer:
    """The command line with the command that is asked for, else with all of them by their summaries.

    Modules import PyTorch, which takes seconds: only that of the command itself is imported.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=_EXAMPLES if asked is None else None)
    # Without a callback an app of one command would not want the command's name.
    app.callback()(_motion_grpo)
    if asked is None:
        for name, command in COMMANDS.items():
            app.command(name, help=command.summary)(_motion_grpo)
        return app
    function, needed = asked.replace("-", "_"), COMMANDS[asked].extra
    with extra(needed) if needed else nullcontext():
        module = import_module(f"motion_grpo.cli.{function}")
    if hasattr(module, "app"):
        app.add_typer(module.app, name=asked, epilog=epilog(asked))
    else:
        app.command(asked, epilog=epilog(asked))(getattr(module, function))
    return app


def main() -> None:
    """Runs a command; bad input ends in one sentence and exit code 1, not in a traceback, unless that is asked for."""
    words = [word for word in sys.argv if word != DEBUG]
    debug, sys.argv = len(words) < len(sys.argv), words
    first = next((word for word in words[1:] if not word.startswith("-")), None)
    try:
        make_app(first if first in COMMANDS else None)()
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"motion-grpo: {error}", file=sys.stderr)
        sys.exit(1)


def _motion_grpo(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback behind an error's sentence.")] = False,
) -> None:
    """Full-body motion from a head trajectory."""
