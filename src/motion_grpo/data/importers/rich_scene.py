"""Where RICH was recorded: the way from its cameras to the z-up world of the laser scan, and the scan itself."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float, Float32
from torch import Tensor

_MAX_POINTS = 400_000
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4", "float": "<f4",
    "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
    "float32": "<f4", "float64": "<f8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RichScene:
    """One arrangement of cameras."""

    R_world_camera: Float[Tensor, "3 3"]
    """World: z up, the laser scan's; camera: the frame that fits and scan are published in."""
    p_world_camera: Float[Tensor, "3"]
    """Meters."""
    scan: Path | None
    """The scanned scene in the camera frame, PLY; None where it is not on this disk."""

    def to_world(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Points of the camera frame in the world, meters."""
        return points @ self.R_world_camera.T + self.p_world_camera


def find_scene(root: Path, sequence: str) -> RichScene:
    """The scene of a sequence, by the table of the toolkit (rich_toolkit, resource/meta).

    Raises:
        FileNotFoundError: no ``multicam2world`` folder or no file of that scene in it.
        ValueError: the file holds no similarity transform.
    """
    capture = sequence.split("_")[0]
    scan, variant = "scan_camcoord", ""
    if capture == "LectureHall":  # chairs were moved between the recordings
        variant = "chair" if "_wiping" in sequence else "yoga"
        scan = f"scan_{variant}_scene_camcoord"
    elif capture == "Gym" and "_cooking" in sequence:
        scan, variant = "scan_table_camcoord", "table"
    folder = _folder(root, "multicam2world")
    if folder is None:
        raise FileNotFoundError(
            f"{root} has no folder multicam2world, which says which way is up: get multicam2world.zip from "
            "rich.is.tue.mpg.de and unpack it there."
        )
    names = [f"{capture}_{variant}_multicam2world.json", f"{capture}_multicam2world.json"]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no {names[1]}, which {sequence} needs.")
    scans = _folder(root, "scan_calibration")
    ply = scans / capture / f"{scan}.ply" if scans else None
    return RichScene(*_read_transform(path), scan=ply if ply and ply.is_file() else None)


def _folder(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, root / "data" / name) if path.is_dir()), None)


@lru_cache(maxsize=16)
def _read_transform(path: Path) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    # p_world = c * p_camera @ R + t, points as rows. The bodies were fitted in the cameras' meters, so that the scan's
    # scale c, which is nearly 1, is divided out: it would stretch the way and not the legs.
    try:
        content = json.loads(path.read_text())
        R, t, c = (np.asarray(content[key], np.float64) for key in "Rtc")
        R, t, c = R.reshape(3, 3), t.reshape(3), float(c)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no multicam2world file: {error!r}.") from error
    R_world_camera = torch.tensor(R.T)
    # Published with as few as three decimals.
    if not 0.5 < c < 2 or not np.isfinite(t).all() or np.abs(R @ R.T - np.eye(3)).max() > 5e-3 or np.linalg.det(R) < 0:
        raise ValueError(f"{path} holds no similarity transform: R is {R.tolist()}, c is {c}, t is {t.tolist()}.")
    return roma.special_procrustes(R_world_camera).float(), torch.tensor(t / c, dtype=torch.float32)


@lru_cache(maxsize=1)
def read_scan(path: Path) -> Float32[np.ndarray, "points 3"]:
    """Every n-th vertex, at most 400,000 in all, of a binary PLY, meters.

    Raises:
        ValueError: no little-endian binary PLY that begins with plain vertices, or a shortened one.
    """
    with path.open("rb") as file:
        lines = []
        while not lines or lines[-1] != "end_header":
            lines.append(file.readline(1000).decode("latin1").strip())
            if lines[0] != "ply" or len(lines) > 100:
                raise ValueError(f"{path} is no PLY file.")
        start = file.tell()
    header = " ".join(line for line in lines if not line.startswith(("comment", "obj_info")))
    vertices = re.match(
        r"ply format binary_little_endian 1\.0 element vertex (\d+)((?: property \w+ \w+)+) (?:element|end_header)",
        header,
    )
    properties = re.findall(r"property (\w+) (\w+)", vertices[2]) if vertices else []
    kinds, names = {kind for kind, _ in properties}, {name for _, name in properties}
    if not {"x", "y", "z"} <= names or not kinds <= _PLY_TYPES.keys():
        raise ValueError(f"{path} is no binary little-endian PLY that begins with vertices: {header[:200]}.")
    dtype, count = np.dtype([(name, _PLY_TYPES[kind]) for kind, name in properties]), int(vertices[1])
    if path.stat().st_size < start + count * dtype.itemsize:
        raise ValueError(f"{path} is cut off: {count} vertices do not fit into it. Copy it again.")
    points = np.memmap(path, dtype, "r", start, (count,))[:: max(1, -(-count // _MAX_POINTS))]
    return np.stack([points[axis] for axis in "xyz"], axis=1).astype(np.float32)
