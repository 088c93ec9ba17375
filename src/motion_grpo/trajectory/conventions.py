"""Axes of other systems (OpenXR, Unity, ARKit, Unreal, ROS, cameras) in words, and conversion to CPF poses, z up."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

SIDES = ("left", "right")
"""The order of what a body has twice."""
_OPPOSITE = {"left": "right", "up": "down", "forward": "back"}
# The library's own axes: CPF is x left, y up, z forward; a world seen along its x axis is x forward, y left, z up.
_CPF = ("left", "up", "forward")
_WORLD = ("forward", "left", "up")


def _axes(words: str, basis: tuple[str, str, str]) -> Float64[Tensor, "3 3"]:
    """Columns: the directions that the words name, in ``basis``."""
    columns = []
    for word in words.split():
        signs = [(word == name) - (word == _OPPOSITE[name]) for name in basis]
        if not any(signs):
            raise ValueError(
                f"'{word}' in the axes '{words}' is no direction: use left, right, up, down, forward and back."
            )
        columns.append(signs)
    matrix = torch.tensor(columns, dtype=torch.float64).mT
    if matrix.shape != (3, 3) or matrix.abs().sum(1).ne(1).any():
        raise ValueError(f"The axes '{words}' must be three perpendicular directions, those of +x, +y and +z.")
    return matrix


@dataclass(frozen=True)
class Convention:
    """What the axes of a tracking system's world and head frame point at, in words for +x, +y and +z in turn.

    ``Convention("right up back", "right up back")`` is OpenXR. Handedness follows from the words. In the world,
    forward is the direction that becomes +x of the library's z-up world; which one it is only turns the world about
    the vertical.

    Raises:
        ValueError: words that are not three perpendicular directions, or frames of different handedness (no rotation
            leads from one to the other, so the system's poses cannot be meant so).
    """

    world: str
    """Directions of the world's axes."""
    head: str
    """Directions of the head frame's axes, as the wearer sees them."""
    metres_per_unit: float = 1.0

    def __post_init__(self) -> None:
        if torch.det(self.A_world) * torch.det(self.A_cpf_head) < 0:
            raise ValueError(
                f"The world '{self.world}' and the head '{self.head}' have different handedness; rotations need the "
                "same."
            )

    @cached_property
    def A_world(self) -> Float64[Tensor, "3 3"]:
        """Takes coordinates of the system's world to the z-up world (a reflection if the system is left-handed)."""
        return _axes(self.world, _WORLD)

    @cached_property
    def A_cpf_head(self) -> Float64[Tensor, "3 3"]:
        """Takes coordinates of the system's head frame to the CPF."""
        return _axes(self.head, _CPF)

    def convert(
        self, rotmats: Float64[Tensor, "frames 3 3"], positions: Float64[Tensor, "frames 3"]
    ) -> tuple[Float64[Tensor, "frames 3 3"], Float64[Tensor, "frames 3"]]:
        """R_world_cpf and p_world_cpf (meters) of the system's head poses; axes are only permuted and flipped."""
        return self.A_world @ rotmats @ self.A_cpf_head.mT, self.convert_points(positions)

    def convert_points(self, points: Float64[Tensor, "points 3"]) -> Float64[Tensor, "points 3"]:
        """Points of the system's world in the z-up world, meters."""
        return points @ self.A_world.mT * self.metres_per_unit

    def __str__(self) -> str:
        return "cpf" if self == CONVENTIONS["cpf"] else f"world '{self.world}', head '{self.head}'"


CONVENTIONS = {
    "cpf": Convention("forward left up", "left up forward"),
    "openxr": Convention("right up back", "right up back"),
    "unity": Convention("right up forward", "right up forward"),
    "arkit": Convention("right up back", "right up back"),
    "unreal": Convention("forward right up", "forward right up", metres_per_unit=0.01),
    "ros": Convention("forward left up", "forward left up"),
    "camera": Convention("forward left up", "right down forward"),
}
"""Named systems.

- ``cpf``: the library's own, the identity.
- ``openxr``: VIEW space in LOCAL, LOCAL_FLOOR or STAGE (the floor of the last two is at 0: pass ``floor_height=0.0``).
  WebXR and OpenVR have the same axes.
- ``unity``: left-handed, y up, z forward, meters: the main camera's transform.
- ``arkit``: ``ARCamera.transform`` under world alignment ``gravity``. That camera frame is landscape, x along the long
  side of the phone: right for a phone worn with its home button (charging port) to the wearer's right.
- ``unreal``: left-handed, z up, x forward, centimeters.
- ``ros``: REP 103 body axes.
- ``camera``: a camera's optical frame (OpenCV, ROS optical, most SLAM) in a z-up world.
"""


def named_convention(convention: str | Convention) -> Convention:
    """The convention itself, the one of that name, or the one in words: ``WORLD / HEAD``."""
    if isinstance(convention, Convention):
        return convention
    if convention.count("/") == 1:
        world, head = (words.strip() for words in convention.split("/"))
        return Convention(world, head)
    if convention not in CONVENTIONS:
        raise ValueError(
            f"Unknown convention '{convention}': use one of {', '.join(CONVENTIONS)}, or say in words where +x, +y and "
            "+z of world and head point, e.g. 'forward left up / right down forward'."
        )
    return CONVENTIONS[convention]
