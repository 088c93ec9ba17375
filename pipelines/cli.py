"""The command ``motion-grpo``: collects the scripts of this folder, and imports the one that is asked for."""

import sys
from importlib import import_module

import click
import typer
from typer.core import TyperGroup

# Importing torch and diffusers takes seconds, which neither help nor a mistyped option should cost.
COMMANDS = {
    "recover": "Recover full-body motion from a head trajectory.",
    "evaluate": "Score recovered motion against recordings.",
    "data": "Import motion data into one schema, to train on and to share.",
}
