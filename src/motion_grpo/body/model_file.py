"""Reads the licensed files of SMPL-H and SMPL-X without unpickling anything."""

from pathlib import Path

import numpy as np

from motion_grpo.files import NPZ_ERRORS


def read_model_file(path: str | Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Some arrays of a body model's npz.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle (``.pkl``), or an array is missing.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        raise ValueError(
            f"{path} is a pickle, which is never loaded here; use the npz release of SMPL-H ('extended SMPL+H')."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: np.asarray(file[key]) for key in keys}
    except KeyError as error:
        raise ValueError(f"{path} is not an SMPL-H file: it has no array {error.args[0].split()[0]}.") from error
    except FileNotFoundError:
        raise
    except NPZ_ERRORS as error:
        raise ValueError(f"{path} cannot be read as an SMPL-H npz without unpickling: {error}") from error
