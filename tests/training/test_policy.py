"""Which weights are trained, and one level a row."""

import pytest
import torch

from motion_grpo.training.policy import MotionPolicy, trainable_names
from tests.tiny import tiny_denoiser

NAMES = ["encoders.betas.0.weight", "latent_from_cond.weight", "latent_from_cond.bias", "decoders.betas.0.weight"]


def test_patterns_add_and_take_away():
    assert trainable_names(NAMES, ["*"]) == set(NAMES)
    assert trainable_names(NAMES, ["*", "!latent_from_cond.*"]) == {NAMES[0], NAMES[3]}
    assert trainable_names(NAMES, ["*coders.*"]) == {NAMES[0], NAMES[3]}
    assert trainable_names(NAMES, ["!latent*", "*.bias"]) == {NAMES[2]}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["*", "!head.*"], r"trainable has '!head\.\*', which matches no weight .* encoders\.betas\.0\.weight"),
        (["blocks.*"], r"trainable has 'blocks\.\*', which matches no weight"),
        (["*", "!*"], r"which leaves no weight to train"),
        ([], r"trainable is \[\], which leaves no weight to train"),
    ],
)
def test_patterns_without_a_meaning(patterns, message):
    with pytest.raises(ValueError, match=message):
        trainable_names(NAMES, patterns)


def test_the_rest_is_frozen():
    policy = MotionPolicy(tiny_denoiser(), trainable=["*", "!latent_from_cond.*"])
    frozen = {name for name, parameter in policy.denoiser.named_parameters() if not parameter.requires_grad}
    assert frozen == {"latent_from_cond.weight", "latent_from_cond.bias"}
    assert len(policy.trained_parameters()) == len(list(policy.parameters())) - 2


@pytest.mark.parametrize("network", [{}, {"noise_conditioning": "token", "noise_in_encoder": True}])
def test_rows_may_have_levels_of_their_own(network):
    denoiser = tiny_denoiser(**network)
    policy, rows = MotionPolicy(denoiser), torch.tensor([0, 0, 1])
    latents, mask = torch.randn(3, 8, denoiser.state_layout.dim), torch.ones(2, 8, dtype=torch.bool)
    cond = torch.randn(2, 8, denoiser.latent_from_cond.in_features)
    with torch.no_grad():
        both = policy(latents, torch.tensor([700, 30]), cond, mask, rows)
        first, second = (policy(latents, level, cond, mask, rows) for level in (700, 30))
    torch.testing.assert_close(both, torch.cat([first[:2], second[2:]]), rtol=1e-5, atol=1e-6)


def test_states_may_stay_as_the_network_puts_them_out():
    denoiser = tiny_denoiser()
    latents, mask = torch.randn(1, 8, denoiser.state_layout.dim), torch.ones(1, 8, dtype=torch.bool)
    cond, rows = torch.randn(1, 8, denoiser.latent_from_cond.in_features), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        raw = MotionPolicy(denoiser, project=False)(latents, 500, cond, mask, rows)
        proper = MotionPolicy(denoiser)(latents, 500, cond, mask, rows)
        sample = denoiser(latents, torch.tensor([500]), cond, mask).sample
    torch.testing.assert_close(raw, sample, rtol=1e-5, atol=1e-6)
    assert (raw - proper).abs().max() > 1e-3
