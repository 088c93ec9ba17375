"""Ground that is not flat: heights over a grid, for stairs and seats."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Terrain:
    """Height of the ground over a grid of the horizontal plane; outside of it the ground is the nearest cell's."""

    heights: Float[Tensor, "ys xs"]
    """z at the grid's points, meters."""
    origin: tuple[float, float]
    """x and y of ``heights[0, 0]``, meters."""
    cell: float
    """Meters between neighboring points."""

    @staticmethod
    def from_points(
        points: Float[Tensor, "points 3"], *, floor: float = 0.0, cell: float = 0.05, ceiling: float = 1.0
    ) -> "Terrain":
        """The highest point over each cell, meters; the floor where there is none.

        Args:
            points: of the scene, in the world of the trajectory.
            floor: z of the floor.
            cell: size of a cell.
            ceiling: points that are higher over the floor are nothing to stand or sit on.

        Raises:
            ValueError: no point between the floor and the ceiling, or a cell of no size.
        """
        if not cell > 0:
            raise ValueError(f"cell is {cell}; give the size of a cell in meters, such as 0.05.")
        low = points[points.isfinite().all(-1) & (points[:, 2] <= floor + ceiling)].float()
        if len(low) == 0:
            raise ValueError(f"No point of the terrain is below {floor + ceiling:g} m; give points in meters, z up.")
        origin = low[:, :2].amin(0)
        place = ((low[:, :2] - origin) / cell).round().long()
        width, depth = (place.amax(0) + 1).tolist()
        heights = torch.full((depth * width,), floor)
        heights.scatter_reduce_(0, place[:, 1] * width + place[:, 0], low[:, 2], "amax")
        return Terrain(heights.view(depth, width), (origin[0].item(), origin[1].item()), cell)

    def lowered(self, height: float) -> "Terrain":
        """In a world whose origin is that much higher."""
        return replace(self, heights=self.heights - height)

    def to(self, like: Tensor) -> "Terrain":
        """On the device and of the type of a tensor."""
        return replace(self, heights=self.heights.to(like))

    def at(self, xy: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 2"]]:
        """Height and its slope along x and y, between the grid's points bilinear."""
        size = xy.new_tensor([self.heights.shape[1] - 1, self.heights.shape[0] - 1])
        place = (xy - xy.new_tensor(self.origin)) / self.cell
        inside = place.clamp(xy.new_zeros(2), size)
        corner = torch.minimum(inside.floor(), (size - 1).clamp_min(0))
        u, v = (inside - corner).unbind(-1)
        x, y = corner.long().unbind(-1)
        right, up = (x + 1).clamp_max(self.heights.shape[1] - 1), (y + 1).clamp_max(self.heights.shape[0] - 1)
        a, b, c, d = (self.heights[j, i] for j, i in ((y, x), (y, right), (up, x), (up, right)))
        height = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
        slope = torch.stack([(1 - v) * (b - a) + v * (d - c), (1 - u) * (c - a) + u * (d - b)], dim=-1)
        return height, torch.where(place == inside, slope / self.cell, 0.0)
