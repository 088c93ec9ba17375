"""AMASS npz files (SMPL-H, 52 joints): what smplx and Blender add-ons read, ours or other people's; and SMPL-X's."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from torch import Tensor

from motion_grpo.body import NUM_BETAS, NUM_BODY_AND_ROOT, NUM_BODY_JOINTS, NUM_JOINTS, Skeleton
from motion_grpo.files import NPZ_ERRORS, whole_file
from motion_grpo.motion.motion import Motion
from motion_grpo.motion.state import FPS

_POSES = 3 * NUM_JOINTS
_SMPLX_POSES, _FACE = _POSES + 9, slice(66, 75)  # jaw and eyes stand between body and hands
_NUM_SMPLX_BETAS = 10  # of the default body; the other six are zero
_SAME_RATE = 1.02  # of two rates that one file says, rounded
_MAX_ANGLE = 4 * np.pi  # radians, some files wind up a turn or two
_MAX_HEIGHT = 20.0  # meters: a body at 90 is in centimeters
# "mocap_frame_rate" is the name in the releases of AMASS for SMPL-X.
_KEYS = (
    "poses", "trans", "betas", "mocap_framerate", "mocap_frame_rate", "contacts", "timestamps", "floor_height",
    "skeleton",
)  # fmt: skip


def write_amass(motion: Motion, path: Path) -> None:
    """Writes poses (axis-angle), trans, betas, gender and mocap_framerate, and what AMASS does not have.

    That is contacts, timestamps, floor_height and the name of the skeleton.
    """
    arrays = {
        "poses": roma.rotmat_to_rotvec(motion.local_rotmats).flatten(1).numpy().astype(np.float32),
        "trans": motion.trans.numpy().astype(np.float32),
        "betas": motion.betas.numpy().astype(np.float32),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(motion.fps),
        "contacts": motion.contacts.numpy().astype(np.float32),
        "timestamps": motion.timestamps.numpy(),
        "floor_height": np.array(motion.floor_height),
        "skeleton": np.array(motion.body.name),
    }
    _write(path, arrays)


def write_smplx(motion: Motion, path: Path) -> None:
    """Writes AMASS's layout for SMPL-X: 165 pose columns, jaw and eyes at rest, the floor at z = 0.

    The default body has SMPL-X's shape space, so its betas are written as they are. A body of another shape space is
    written with the SMPL-X betas of its stature; poses are the same in both.
    """
    motion = motion.above_floor()
    body = Skeleton.mannequin_x()
    if motion.body.name in (body.name, Skeleton.default().name):
        betas = motion.betas
    else:
        betas = body.betas_of_stature(float(motion.body.stature(motion.betas)))
    body_poses, hand_poses = roma.rotmat_to_rotvec(motion.local_rotmats).split([22, 30], dim=1)
    face = torch.zeros(len(motion), 3, 3)
    poses = torch.cat([body_poses, face, hand_poses], dim=1).flatten(1)
    trans = motion.root_positions - body.rest_joints(betas)[0]
    arrays = dict(
        surface_model_type=np.array("smplx"),
        gender=np.array("neutral"),
        mocap_frame_rate=np.array(motion.fps),
        poses=poses.numpy().astype(np.float32),
        trans=trans.numpy().astype(np.float32),
        betas=torch.nn.functional.pad(betas[:_NUM_SMPLX_BETAS], (0, NUM_BETAS - _NUM_SMPLX_BETAS)).numpy(),
    )
    _write(path, arrays)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_amass(path: str | Path, skeleton: Skeleton | None = None) -> Motion:
    """Reads an AMASS npz (156 pose columns; 165 of SMPL-X, less the face), ours or other people's.

    Args:
        path: of the file.
        skeleton: body that the file's betas refer to. When None it is the default body, or mannequin-x where the file
            says so, as motions of this library did before the default body was made symmetric.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an AMASS npz; names what is missing or misshapen.
    """
    arrays = _read(Path(path))
    poses, trans = arrays["poses"], arrays["trans"]
    fps = float(arrays.get("mocap_framerate", arrays.get("mocap_frame_rate", FPS)))
    if not 0 < fps < np.inf:
        raise ValueError(f"{path}: mocap_framerate is {fps}; frames per second must be a positive number.")
    body = _body_of(path, str(arrays.get("skeleton", "")), skeleton)
    given = _float(arrays["betas"]).flatten()[:NUM_BETAS]
    betas = torch.zeros(NUM_BETAS)
    betas[: len(given)] = given
    rotmats = roma.rotvec_to_rotmat(_float(poses).unflatten(1, (NUM_JOINTS, 3)))
    timestamps = arrays.get("timestamps", np.arange(len(poses)) / fps)
    hands_move = bool(np.abs(poses[:, 66:]).max(initial=0) > 1e-6)
    return Motion(
        root_rotmats=rotmats[:, 0],
        root_positions=_float(trans) + body.rest_joints(betas)[0],
        body_rotmats=rotmats[:, 1:NUM_BODY_AND_ROOT],
        betas=betas,
        contacts=_float(arrays.get("contacts", np.zeros((len(poses), NUM_BODY_JOINTS)))),
        timestamps=torch.tensor(timestamps, dtype=torch.float64),
        hand_rotmats=rotmats[:, 22:] if hands_move else None,
        floor_height=float(arrays.get("floor_height", 0.0)),
        skeleton=None if body is Skeleton.default() else body,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed, of the right shapes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            # Other people's files hold object arrays beside these: what is not needed is not read.
            arrays = {key: file[key] for key in _KEYS if key in file}
    except FileNotFoundError:
        raise
    except NPZ_ERRORS as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error
    missing = sorted({"poses", "trans", "betas"} - arrays.keys())
    if missing:
        raise ValueError(f"{path} is no AMASS motion: it has no {', '.join(missing)}.")
    if arrays["poses"].ndim == 2 and arrays["poses"].shape[1] == _SMPLX_POSES:
        arrays["poses"] = np.delete(arrays["poses"], _FACE, axis=1)
    poses, trans = arrays["poses"], arrays["trans"]
    if poses.ndim != 2 or poses.shape[1] != _POSES or trans.shape != (len(poses), 3) or len(poses) == 0:
        raise ValueError(
            f"{path}: poses has shape {poses.shape} and trans {trans.shape}; "
            f"SMPL-H needs (frames, {_POSES}) and (frames, 3)."
        )
    for key, shape in (("timestamps", (len(poses),)), ("contacts", (len(poses), NUM_BODY_JOINTS))):
        if key in arrays and arrays[key].shape != shape:
            raise ValueError(f"{path}: {key} has shape {arrays[key].shape}; {len(poses)} frames need {shape}.")
    _check_values(path, arrays)
    return arrays


def _check_values(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError for words, NaN and infinities, several rates or floors, and times that do not increase."""
    for key in arrays.keys() - {"skeleton"}:
        array = arrays[key]
        if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
            raise ValueError(f"{path}: {key} has the type {array.dtype}; save real numbers.")
        if key in ("mocap_framerate", "mocap_frame_rate", "floor_height"):
            if array.size != 1:
                raise ValueError(f"{path}: {key} has shape {array.shape}; a motion has one: save one number.")
            arrays[key] = array.reshape(())
        elif not np.isfinite(array).all():
            place = (
                f" in frame {np.argwhere(~np.isfinite(array))[0][0]}"
                if array.shape[:1] == arrays["poses"].shape[:1]
                else ""
            )
            raise ValueError(f"{path}: {key} is NaN or infinite{place}; cut such frames out and save it again.")
    if not np.isfinite(arrays.get("floor_height", 0.0)):
        raise ValueError(f"{path}: floor_height is {arrays['floor_height']}; save meters, or leave it out.")
    if "timestamps" in arrays and not (np.diff(arrays["timestamps"]) > 0).all():
        raise ValueError(f"{path}: timestamps do not increase; sort the frames, or leave timestamps out.")
    _check_rates(path, arrays)
    _check_units(path, arrays["poses"], arrays["trans"], float(arrays.get("floor_height", 0.0)))


def _check_rates(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError where a file says twice how fast it plays, and not the same."""
    rates = {key: float(arrays[key]) for key in ("mocap_framerate", "mocap_frame_rate") if key in arrays}
    if len(arrays.get("timestamps", ())) > 1:
        rates["timestamps"] = 1 / float(np.median(np.diff(arrays["timestamps"])))
    if len(rates) > 1 and max(rates.values()) > _SAME_RATE * min(rates.values()):
        told = ", ".join(f"{key} {rate:.4g}" for key, rate in rates.items())
        raise ValueError(
            f"{path} says twice how many frames there are in a second, and differs ({told}): keep one of them, with "
            "timestamps in seconds."
        )


def _check_units(path: Path, poses: np.ndarray, trans: np.ndarray, floor_height: float) -> None:
    """Raises ValueError for angles in degrees, warns of a body that no floor of meters holds."""
    if np.abs(poses).max() > _MAX_ANGLE:
        raise ValueError(
            f"{path}: poses reach {np.abs(poses).max():.3g}; axis-angle in radians is needed, not degrees."
        )
    height = float(np.median(trans[:, 2])) - floor_height
    if abs(height) > _MAX_HEIGHT:
        warnings.warn(
            f"The body of {path} is {height:.3g} m above its floor in the median: check the unit of trans (meters).",
            stacklevel=5,
        )


def _body_of(path: str | Path, recorded: str, given: Skeleton | None) -> Skeleton:
    """The body that the betas are read with; warns where the file names another."""
    if given is None and recorded == Skeleton.mannequin_x().name:
        return Skeleton.mannequin_x()
    body = given or Skeleton.default()
    if recorded and recorded != body.name:
        warnings.warn(
            f"{path} was written with the body {recorded!r}, but its betas are read as those of {body.name!r}: "
            "pass the former as skeleton.",
            stacklevel=4,
        )
    return body


def _float(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)
