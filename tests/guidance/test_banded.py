import pytest
import torch

from motion_grpo.guidance.banded import BlockTridiagonal, Tridiagonal


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 8, 13, 16])
@pytest.mark.parametrize("k", [1, 4])
def test_solves_what_a_dense_solver_solves(frames: int, k: int) -> None:
    generator = torch.Generator().manual_seed(frames)
    blocks = torch.randn(2, frames, k, k, generator=generator, dtype=torch.float64)
    diagonal = blocks @ blocks.mT + 4 * k * torch.eye(k, dtype=torch.float64)
    upper = torch.randn(2, frames - 1, k, k, generator=generator, dtype=torch.float64)
    whole = torch.zeros(2, frames, k, frames, k, dtype=torch.float64)
    for t in range(frames):
        whole[:, t, :, t] = diagonal[:, t]
        if t + 1 < frames:
            whole[:, t, :, t + 1], whole[:, t + 1, :, t] = upper[:, t], upper[:, t].mT
    b = torch.randn(2, frames, k, generator=generator, dtype=torch.float64)
    true = torch.linalg.solve(whole.flatten(3).flatten(1, 2), b.flatten(1, 2)).view_as(b)
    torch.testing.assert_close(BlockTridiagonal(diagonal, upper).solve(b), true)
    if k == 1:
        numbers = Tridiagonal(diagonal[..., 0, 0].T, upper[..., 0, 0].T)
        torch.testing.assert_close(numbers.solve(b[..., 0].T), true[..., 0].T)
