"""The options by which a command reads a head trajectory, and the library's messages in their terms."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

Convention = Annotated[
    str | None,
    typer.Option(
        help="Axes of a file that is not Aria's: cpf, openxr, unity, arkit, unreal, ros, camera, or in words "
        "'WORLD / HEAD', e.g. 'right up back / right down forward'.",
        show_default="cpf",
    ),
]
Fps = Annotated[float | None, typer.Option(help="Poses per second of a file without times.")]
World = Annotated[str | None, typer.Option(help="World (graph_uid) to read of an Aria file with several.")]
DeviceGeneration = Annotated[
    str | None,
    typer.Option(
        help="Aria glasses whose default extrinsic is used: gen1, gen1-large, gen2, gen2-large.", show_default="gen1"
    ),
]
Vrs = Annotated[Path | None, typer.Option(help="VRS file to take the device-to-CPF calibration from.")]
DeviceCpf = Annotated[
    str | None,
    typer.Option(
        "--T-device-cpf",
        help="CPF in the frame of the device: a text file with 4x4 or 7 numbers, or 'w x y z  x y z' (meters).",
    ),
]

# Arguments of load_trajectory: what the option is called.
_OPTIONS = {
    "convention": "--convention",
    "fps": "--fps",
    "world_uid": "--world",
    "device": "--device-generation",
    "vrs": "--vrs",
    "T_device_cpf": "--T-device-cpf",
    "floor_height": "--floor-height",
}
_CALL = re.compile(r"load_trajectory\(path, ([^()]*)\)")
_ARGUMENT = re.compile(rf"\b({'|'.join(_OPTIONS)})=('[^']*'|\.\.\.|[^\s,;()]+)")


def read_T_device_cpf(value: str | None) -> np.ndarray | None:
    """The matrix or the 7 numbers that an option names.

    Raises:
        ValueError: neither numbers nor a file of numbers.
    """
    if value is None:
        return None
    try:
        if Path(value).is_file():
            return np.loadtxt(value, delimiter="," if "," in Path(value).read_text() else None)
        return np.array([float(word) for word in value.replace(",", " ").split()])
    except ValueError as error:
        raise ValueError(f"--T-device-cpf is {value!r}; give a text file with 4x4 or 7 numbers, or these.") from error


def in_options(message: str) -> str:
    """A message of the library with the command's options where it names arguments and calls."""

    def option(match: re.Match) -> str:
        name, value = match.groups()
        return _OPTIONS[name] if value == "..." else f"{_OPTIONS[name]} {value}"

    message = _ARGUMENT.sub(option, _CALL.sub(r"\1", message))
    message = message.replace("load_segments(path)", "--split")
    return message.replace("T_device_cpf", _OPTIONS["T_device_cpf"])


@contextmanager
def plain_messages() -> Iterator[None]:
    """Errors of the block name options, and its warnings come after everything else, where nobody overlooks them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except ValueError as error:
            raise ValueError(in_options(str(error))) from error
        finally:
            console = Console(stderr=True)
            told = dict.fromkeys(in_options(str(one.message)) for one in caught if one.category is UserWarning)
            sys.stdout.flush()
            for message in told:
                console.print(f"warning: {message}", style="bold yellow", markup=False, highlight=False, soft_wrap=True)
