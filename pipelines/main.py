"""The command ``motion-grpo``: collects the scripts of this folder."""

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

COMMANDS = ("recover", "score", "evaluate", "evaluate-critic", "data", "plot-run")


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands, whose modules are imported here."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    # Without a callback an app of one command would not want the command's name.
    app.callback()(_motion_grpo)
    for name in names:
        function = name.replace("-", "_")
        module = import_module(f"motion_grpo.cli.{function}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, function))
    return app


def main() -> None:
    """Runs a command; bad input ends in one sentence and exit code 1, not in a traceback."""
    # Most modules import torch, which takes seconds: only the one that is asked for.
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        make_app([asked] if asked in COMMANDS else COMMANDS)()
    except (ValueError, OSError, ImportError) as error:
        print(f"motion-grpo: {error}", file=sys.stderr)
        sys.exit(1)


def _motion_grpo() -> None:
    """Full-body motion from a head trajectory."""
