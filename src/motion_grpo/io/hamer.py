"""Converts the pickle in which EgoAllo keeps HaMeR's detections."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from motion_grpo.files import whole_file
from motion_grpo.io.restricted_pickle import load_pickled_arrays
from motion_grpo.trajectory.readers.hamer import HAMER_SHAPES

EGOALLO_FOCAL_LENGTH = 450.0
"""Pixels, of the pinhole image that EgoAllo's ``2_run_hamer_on_vrs.py`` undistorts to."""


def convert_hamer(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    from_pickle: bool = False,
    focal_length: float = EGOALLO_FOCAL_LENGTH,
) -> Path:
    """Writes the detections of ``hamer_outputs.pkl`` as the npz that :func:`~motion_grpo.trajectory.read_hamer` reads.

    No code of the pickle runs: only numbers, texts, arrays and their containers are read.

    Args:
        source: EgoAllo's ``hamer_outputs.pkl``.
        output: npz to write.
        from_pickle: has to be True, so that nobody reads a pickle without knowing.
        focal_length: of the image in which the hands were found, pixels.

    Raises:
        ValueError: no ``from_pickle``, or a file that holds anything but such detections.
    """
    output = Path(output)
    if not from_pickle:
        raise ValueError(f"{source} is a pickle, which is read (as plain numbers, no code runs) only with from_pickle.")
    if output.suffix != ".npz":
        raise ValueError(f"{output}: detections are written as .npz.")
    found = load_pickled_arrays(source)
    arrays: dict[str, Any] = {"focal_length": np.array(focal_length)}
    try:
        arrays["T_cpf_cam"] = np.asarray(found["T_cpf_cam"], np.float64).reshape(7)
        for side in ("left", "right"):
            times, parts = [], {name: [] for name in HAMER_SHAPES}
            for time, detections in sorted(found[f"detections_{side}_wrt_cam"].items()):
                if detections is None:
                    continue
                for row in range(len(detections["keypoints_3d"])):
                    times.append(time)
                    for name, rows in parts.items():
                        rows.append(np.asarray(detections[name][row], np.float32))
            arrays[f"{side}_timestamps_ns"] = np.array(times, np.int64)
            for name, shape in HAMER_SHAPES.items():
                arrays[f"{side}_{name}"] = np.array(parts[name], np.float32).reshape(len(times), *shape)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{source} does not hold HaMeR's detections as EgoAllo keeps them: {error}") from error
    with whole_file(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return output
