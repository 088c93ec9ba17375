"""Runs the training commands of a file one after the other in this process: python run_trainings.py commands.txt."""

import os
import runpy
import shlex
import sys
from pathlib import Path

for line in Path(sys.argv[1]).read_text().splitlines():
    words = shlex.split(line)[2:]
    if words[0] == "-m":
        module, *given = words[1:]
        # Presets go by their names there: those of the package are hours long.
        given = [f"configs/{word}" if word.endswith(".yaml") and "/" not in word else word for word in given]
        sys.argv = [module, *given]
        runpy.run_module(module, run_name="__main__")
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        runpy.run_path(words[0], run_name="__main__")
    print("ran:", line, flush=True)
