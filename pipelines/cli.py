"""The command ``motion-grpo``: collects the scripts of this folder."""

import sys

import typer

from motion_grpo_cli.evaluate import evaluate
from motion_grpo_cli.recover import recover

app = typer.Typer(help="Full-body motion from a head trajectory.", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(recover)
app.command()(evaluate)


def main() -> None:
    """Runs a command; bad input ends in one sentence and exit code 1, not in a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"motion-grpo: {error}", file=sys.stderr)
        sys.exit(1)
