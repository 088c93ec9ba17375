import torch

from motion_grpo.seeding import generator_of


def test_a_stream_is_a_function_of_its_key():
    def draw(*key):
        return torch.randn(4, generator=generator_of(*key))

    assert torch.equal(draw(0, 1, 23), draw(0, 1, 23))
    keys = [(0, 1, 23), (0, 12, 3), (1, 1, 23), (0, 1, 24), (0, 1, 23, 0), (0, 1, "head", 23)]
    draws = [draw(*key) for key in keys]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
