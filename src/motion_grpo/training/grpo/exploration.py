"""What a rollout of GRPO draws, and by which generator: start noise, action noise and smooth action noise.

Every random number is a function of the seed, the number of the generation, the condition and, where members of a group
differ, the member. So a rollout is the same on one process or many, however its batch is divided, and after a resume.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.seeding import generator_of

EXPLORATION = ("white", "smooth_credit", "smooth")


def smooth_basis(mask: Bool[Tensor, "rows frames"], components: int) -> Float[Tensor, "rows frames components"]:
    """The lowest temporal frequencies of each row: orthonormal columns of the DCT-II over its frames, 0 elsewhere.

    Args:
        mask: True for frames that exist, which come first.
        components: columns; of a row with fewer frames than that, the others are 0.
    """
    frames = mask.sum(1)[:, None, None]
    time = torch.arange(mask.shape[1], device=mask.device)[:, None]
    order = torch.arange(components, device=mask.device)
    basis = torch.cos(torch.pi * (time + 0.5) * order / frames) * (2.0 / frames).sqrt()
    basis[..., 0] *= 0.5**0.5
    return basis * (time < frames) * (order < frames)


class ExplorationNoise:
    """The noise of one rollout. Each call draws on, so the calls of a rollout have to come in its order.

    ``white`` draws every number for every sample (the paper). ``smooth_credit`` does the same; that only low
    frequencies count is the objective's business. ``smooth`` draws only the coordinates along ``basis`` for every
    sample, and the rest once a group, as the start is: a state x_t is then as noisy as the network expects, but what
    members of a group differ by is smooth.

    Args:
        seed: of the run.
        generation: number of the rollout in the run.
        conditions: id of each row.
        rows: row of each sample.
        members: number of each sample in its group.
        shape: frames and numbers per frame of a state.
        basis: see :func:`smooth_basis`, one a row.
        kind: one of `EXPLORATION`.
    """

    def __init__(
        self,
        seed: int,
        generation: int,
        conditions: Sequence[int],
        rows: Sequence[int],
        members: Sequence[int],
        shape: tuple[int, int],
        basis: Float[Tensor, "rows frames components"],
        kind: str = "white",
    ) -> None:
        self.kind, self.shape = kind, shape
        self.rows = torch.as_tensor(rows, device=basis.device)
        self.basis = basis
        self._shared = [generator_of(seed, generation, condition) for condition in conditions]
        self._own = [
            generator_of(seed, generation, conditions[row], member) for row, member in zip(rows, members, strict=True)
        ]

    def start(self) -> Float[Tensor, "conditions frames d_state"]:
        """x_T, one for all members of a group (Sec. 3.3)."""
        return self._draw(self._shared, self.shape)

    def shared(self) -> Float[Tensor, "conditions frames d_state"]:
        """Standard normal noise of the next step, one for all members of a group."""
        return self._draw(self._shared, self.shape)

    def step(self) -> Float[Tensor, "samples frames d_state"]:
        """Standard normal noise of the next step, for every sample."""
        if self.kind != "smooth":
            return self._draw(self._own, self.shape)
        shared = self.shared()
        rest = shared - self.basis @ (self.basis.mT @ shared)
        return rest[self.rows] + self.smooth()

    def smooth(self) -> Float[Tensor, "samples frames d_state"]:
        """Noise along the basis alone; its coordinates are standard normal."""
        coordinates = self._draw(self._own, (self.basis.shape[-1], self.shape[1]))
        return self.basis[self.rows] @ coordinates

    def _draw(self, generators: Sequence[torch.Generator], shape: tuple[int, int]) -> Tensor:
        drawn = torch.empty(len(generators), *shape)
        # A stream is drawn by one thread; on a GPU machine a single one could not keep up with the network.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda out, stream: torch.randn(shape, generator=stream, out=out), drawn, generators))
        return drawn.to(self.basis.device)


def trained_transitions(explored: Sequence[int], fraction: float, stream: torch.Generator) -> list[int]:
    """A random share of these transitions, at least one, in order."""
    count = max(1, round(fraction * len(explored)))
    chosen = torch.randperm(len(explored), generator=stream)[:count].sort().values
    return [explored[i] for i in chosen.tolist()]


def explored_steps(num_steps: int, size: int | None, start: int | None, stream: torch.Generator) -> list[int]:
    """In which steps every sample draws noise of its own: all but the last, or ``size`` of them.

    Those begin at ``start``, somewhere when None.
    """
    last = num_steps - 1
    if size is None:
        return list(range(last))
    if size == 0:
        return []
    if start is None:
        start = int(torch.randint(last - size + 1, (), generator=stream))
    return list(range(start, start + size))
