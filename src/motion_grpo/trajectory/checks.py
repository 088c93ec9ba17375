"""What is checked once, where poses enter the library: every error names the value, its place and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from motion_grpo.geometry.rotations import project_to_rotation

ArrayLike = np.ndarray | Tensor | Sequence

# Quaternions with three decimals are off by 1e-3; anything further from a rotation is not a rounding error.
ROTATION_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Origin:
    """Where poses come from, so that messages can name the place."""

    source: str
    """A file, or what an array is called."""
    lines: Sequence[int] | None = None
    """The line of each pose, of a file whose poses stand one a line; None counts frames instead."""
    call: str = "HeadTrajectory.from_convention(poses, ..., {})"
    """How the poses come in, for remedies: see ``giving``."""

    @staticmethod
    def file(path: object, lines: Sequence[int] | None = None) -> "Origin":
        """A file that ``load_trajectory`` reads."""
        return Origin(str(path), lines, "load_trajectory(path, {})")

    def at(self, index: int) -> str:
        """Names the place of pose ``index``, e.g. ``Line 12 of walk.csv``."""
        if self.lines is None:
            return f"Frame {index} of {self.source}"
        return f"Line {self.lines[index]} of {self.source}"

    def giving(self, argument: str) -> str:
        """The call with this argument, e.g. ``load_trajectory(path, fps=30)``."""
        return self.call.format(argument)


def as_float64(values: ArrayLike, what: str) -> Float64[Tensor, "..."]:
    """A float64 CPU tensor of any array of numbers."""
    try:
        if isinstance(values, Tensor):
            # A column of a table is strided, which some of torch's functions copy with a warning.
            return values.detach().to("cpu", torch.float64).contiguous()
        return torch.from_numpy(np.array(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be a rectangular array of numbers: {error}.") from error


def as_points(points: ArrayLike) -> Float64[Tensor, "points 3"]:
    """A point cloud as float64; raises ValueError for another shape."""
    points = as_float64(points, "points")
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must have the shape (points, 3), not {tuple(points.shape)}.")
    return points


def first(mask: Bool[Tensor, " frames"]) -> int | None:
    """Index of the first frame where ``mask`` holds."""
    return int(mask.nonzero()[0]) if bool(mask.any()) else None


def check_finite(values: Float64[Tensor, " frames *rest"], what: str, origin: Origin) -> None:
    """Raises ValueError at the first frame with a NaN or an infinity."""
    bad = first(~values.isfinite().flatten(1).all(1))
    if bad is not None:
        raise ValueError(
            f"{origin.at(bad)} has a {what} that is missing, NaN or infinite: {values[bad].tolist()}. Remove the "
            "frames where tracking was lost (their gap is then found by its timestamps)."
        )


def check_timestamps(timestamps: Float64[Tensor, " frames"], origin: Origin) -> None:
    """Raises ValueError for fewer than two poses, or at the first time that does not increase."""
    if len(timestamps) < 2:
        raise ValueError(
            f"A trajectory needs at least 2 poses, because motion is conditioned on the change of pose; "
            f"{origin.source} has {len(timestamps)}."
        )
    check_finite(timestamps[:, None], "timestamp", origin)
    bad = first(timestamps.diff() <= 0)
    if bad is not None:
        before, after = timestamps[bad].item(), timestamps[bad + 1].item()
        verb = "repeats" if before == after else "runs backwards from"
        raise ValueError(
            f"{origin.at(bad + 1)}: the timestamp {after:.6f} s {verb} the one before it ({before:.6f} s). Times must "
            "strictly increase: sort the poses and drop repeated ones (and give timestamps as float64: float32 cannot "
            "hold them)."
        )


def rotations_from_quaternions(wxyz: Float64[Tensor, "frames 4"], origin: Origin) -> Float64[Tensor, "frames 3 3"]:
    """Rotation matrices of nearly unit quaternions (w first), renormalized.

    Raises:
        ValueError: a NaN, or a norm further than 5e-3 from 1.
    """
    check_finite(wxyz, "quaternion", origin)
    norms = wxyz.norm(dim=1)
    bad = first((norms - 1).abs() > ROTATION_TOLERANCE)
    if bad is not None:
        raise ValueError(
            f"{origin.at(bad)} has the quaternion {wxyz[bad].tolist()} (w x y z) of norm {norms[bad]:.4f}, which is "
            "no rotation. Unit quaternions are needed: check the order of the columns, and remove frames without "
            "tracking."
        )
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(wxyz / norms[:, None]))


def rotations_from_matrices(rotmats: Float64[Tensor, "frames 3 3"], origin: Origin) -> Float64[Tensor, "frames 3 3"]:
    """Nearly orthonormal matrices, projected onto SO(3).

    Raises:
        ValueError: a NaN, a reflection, or a matrix whose R R^T is further than 5e-3 from the identity.
    """
    check_finite(rotmats, "rotation", origin)
    residuals = (rotmats @ rotmats.mT - torch.eye(3, dtype=rotmats.dtype)).abs().amax((1, 2))
    bad = first(residuals > ROTATION_TOLERANCE)
    if bad is not None:
        raise ValueError(
            f"{origin.at(bad)} has a 3x3 part that is no rotation: R R^T is off the identity by {residuals[bad]:.3g}. "
            "Remove scale and shear from the poses."
        )
    # det, without an LU factorisation for each of what may be millions of poses.
    left_handed = origin.giving("convention='unity'")
    bad = first((torch.linalg.cross(rotmats[:, 0], rotmats[:, 1]) * rotmats[:, 2]).sum(1) < 0)
    if bad is not None:
        raise ValueError(
            f"{origin.at(bad)} has a reflection (determinant -1), so just one of its frames is left-handed. Give the "
            f"poses as their system has them, with its axes: {left_handed}."
        )
    # Exact rotations, which are the rule, are kept to the bit.
    off = residuals > 1e-6
    if bool(off.any()):
        rotmats = rotmats.clone()
        rotmats[off] = project_to_rotation(rotmats[off])
    return rotmats


def split_poses(poses: ArrayLike, origin: Origin) -> tuple[Float64[Tensor, "frames 3 3"], Float64[Tensor, "frames 3"]]:
    """Rotations and positions of (frames, 4, 4) matrices or (frames, 7) wxyz + xyz poses, checked."""
    poses = as_float64(poses, "poses")
    if poses.ndim == 3 and poses.shape[1:] == (4, 4):
        check_finite(poses, "pose", origin)
        bottom = poses[:, 3] - torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        bad = first(bottom.abs().amax(1) > 1e-6)
        if bad is not None:
            raise ValueError(
                f"{origin.at(bad)} has the last row {poses[bad, 3].tolist()} where a pose has 0 0 0 1. Column-major "
                "engines store matrices transposed: transpose them."
            )
        return rotations_from_matrices(poses[:, :3, :3], origin), poses[:, :3, 3]
    if poses.ndim == 2 and poses.shape[1] == 7:
        check_finite(poses[:, 4:], "position", origin)
        return rotations_from_quaternions(poses[:, :4], origin), poses[:, 4:]
    raise ValueError(
        "Poses must have the shape (frames, 7), quaternion w x y z then position x y z, or (frames, 4, 4); "
        f"{origin.source} has the shape {tuple(poses.shape)}."
    )


def check_extrinsic(T_device_cpf: ArrayLike) -> tuple[Float64[Tensor, "3 3"], Float64[Tensor, "3"]]:
    """R_device_cpf and p_device_cpf (meters) of a (4, 4) matrix or 7 numbers wxyz + xyz."""
    matrix = as_float64(T_device_cpf, "T_device_cpf")
    if matrix.shape not in ((4, 4), (7,)):
        raise ValueError(
            f"T_device_cpf must be a 4x4 matrix or 7 numbers w x y z, x y z; its shape is {tuple(matrix.shape)}."
        )
    R, p = split_poses(matrix[None], Origin("T_device_cpf"))
    if p.norm() > 0.5:
        raise ValueError(f"T_device_cpf puts the eyes {p.norm():.3g} m from the device; it must be in meters.")
    return R[0], p[0]


def pose_matrix(R: Float64[Tensor, "3 3"], p: Float64[Tensor, "3"]) -> Float64[Tensor, "4 4"]:
    """One pose as a matrix."""
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = R, p
    return T


def read_as_xyzw(wxyz: Float64[Tensor, "frames 4"]) -> Float64[Tensor, "frames 3 3"]:
    """The rotations that checked quaternions would mean if w came last."""
    return roma.unitquat_to_rotmat(wxyz / wxyz.norm(dim=1, keepdim=True))
