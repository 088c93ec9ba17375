import logging
import pickle
from pathlib import Path

import jaxtyping
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.models.conditioning import PARAMETERIZATIONS
from motion_grpo.models.transformer import rotate, sinusoids
from motion_grpo.motion import MotionState
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.body.smplh import Unpickled
from tests.conftest import shared_path
from tests.tiny import GOLDEN, head_poses, tiny_denoiser

CONFIGS = ("token_rope", "film_rope_nohands", "token_sinusoid_canonicalized")
TOKEN = {"noise_conditioning": "token", "noise_in_encoder": True}


def denoiser(**changes) -> EgoMotionDenoiser:
    """Tiny, with random weights also where training starts at zero or at one, and with attention that is not flat."""
    model = tiny_denoiser(**changes)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "film" in name or "layernorm" in name:
                value += 0.3 * torch.randn(value.shape)
            elif "attn" in name:
                value *= 3
    return model


def inputs(model: EgoMotionDenoiser, batch: int = 2, frames: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy state, noise levels and head features."""
    cond = model.condition(heads(batch, frames))
    return torch.randn(batch, frames, model.state_layout.dim), torch.randint(1, 1001, (batch,)), cond


def heads(batch: int, frames: int) -> HeadPoses:
    T = head_poses(batch * frames).unflatten(0, (batch, frames))
    return HeadPoses.from_world(T[..., :3, :3], T[..., :3, 3])


@pytest.fixture
def as_users_run_it():
    """Switches the shape checker off, which would else be the one to refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# ---- EgoAllo's numbers


def golden_path(name: str) -> Path:
    return GOLDEN / name if (GOLDEN / name).exists() else shared_path(f"golden/{name}")


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_agreement_with_egoallo(name: str) -> None:
    model = EgoMotionDenoiser.from_egoallo(golden_path(f"egoallo_{name}"))
    golden = load_file(golden_path(f"denoiser_{name}.io.safetensors"))

    def close(actual: Tensor, expected: Tensor) -> None:
        assert_close(actual, expected, rtol=0.0, atol=1e-4 * float(expected.abs().max()))

    cond = model.condition(HeadPoses.from_wxyz_xyz(golden["T_world_cpf"], golden["T_cpf_tm1_cpf_t"]))
    close(cond, golden["cond"])
    with torch.no_grad():
        out = model(golden["x_t"], golden["t"], cond).sample
        masked = model(golden["x_t"], golden["t"], cond, golden["mask"]).sample
    close(out, golden["out"])
    close(masked, golden["out_masked"])
    layout = model.state_layout
    close(MotionState.unpack(out, layout, allow_reflection=True).pack(layout), golden["out_body_projected"])


def test_default_network_is_as_large_as_egoallos() -> None:
    with torch.device("meta"):
        model = EgoMotionDenoiser()
    assert round(sum(value.numel() for value in model.parameters()) / 1e6, 2) == 50.45
    assert model.state_layout.dim == 496


# ---- saving


@pytest.mark.parametrize("changes", [{}, TOKEN, {"normalize_cond": True, "rotation_representation": "6d"}])
def test_saved_network_is_the_same_network(changes: dict, tmp_path) -> None:
    model = denoiser(**changes)
    sample, timestep, cond = inputs(model)
    if changes.get("normalize_cond"):
        model.set_condition_statistics(cond)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = EgoMotionDenoiser.from_pretrained(tmp_path)
    assert dict(loaded.config).items() >= {**changes, "d_latent": 16}.items()
    assert not loaded.training
    assert torch.equal(loaded(sample, timestep, cond).sample, model(sample, timestep, cond).sample)


@pytest.fixture
def saved(tmp_path) -> Path:
    denoiser().save_pretrained(tmp_path)
    return tmp_path / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_emb.weight": None}, r"lacks 1 weights that its config\.json asks for: noise_emb\.weight"),
        ({"noise_emb.weight": torch.zeros(1000, 9)}, r"does not fit its config\.json"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes: dict, message: str, saved) -> None:
    weights = {name: value for name, value in (load_file(saved) | changes).items() if value is not None}
    save_file(weights, saved, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        EgoMotionDenoiser.from_pretrained(saved.parent)


def test_pickled_weights_are_never_loaded(saved) -> None:
    with pytest.raises(ValueError, match="use_safetensors=False would load a pickle"):
        EgoMotionDenoiser.from_pretrained(saved.parent, use_safetensors=False)
    trace = saved.parent / "trace"
    saved.with_suffix(".bin").write_bytes(pickle.dumps(Unpickled(trace)))
    saved.unlink()
    with pytest.raises(OSError, match="safetensors"):
        EgoMotionDenoiser.from_pretrained(saved.parent)
    assert not trace.exists()


# ---- what the output depends on


def test_rows_do_not_depend_on_their_batch() -> None:
    model = denoiser(**TOKEN)
    sample, timestep, cond = inputs(model, batch=3)
    together = model(sample, timestep, cond).sample
    for row in range(3):
        alone = model(sample[row, None], timestep[row, None], cond[row, None]).sample
        assert_close(together[row], alone[0], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("changes", [TOKEN, {"noise_in_encoder": True}, {}])
def test_noise_levels_count_from_one(changes: dict) -> None:
    model = denoiser(**changes)
    sample, _, cond = inputs(model)
    levels = (torch.tensor([1, 1]), torch.tensor([1000, 1000]))
    before = [model(sample, level, cond).sample for level in levels]
    with torch.no_grad():
        model.noise_emb.weight[0] += 1.0
    after = [model(sample, level, cond).sample for level in levels]
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("xattn_mode", ["kv_from_cond_q_from_x", "kv_from_x_q_from_cond"])
@pytest.mark.parametrize("positional_encoding", ["rope", "transformer"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_every_frame_sees_every_frame_of_both_sequences(
    xattn_mode: str, positional_encoding: str, activation: str
) -> None:
    model = denoiser(xattn_mode=xattn_mode, positional_encoding=positional_encoding, activation=activation)
    sample, timestep, cond = inputs(model, frames=5)
    sample, cond = sample.requires_grad_(), cond.requires_grad_()
    model(sample, timestep, cond).sample[:, 0].square().sum().backward()
    assert (sample.grad.abs().amax(-1) > 0).all()
    assert (cond.grad.abs().amax(-1) > 0).all()
    with torch.no_grad():
        turned = model(sample.flip(1), timestep, cond.flip(1)).sample.flip(1)  # positions matter
        assert not torch.allclose(turned, model(sample, timestep, cond).sample, atol=1e-5)


def test_a_new_network_predicts_the_rest_pose() -> None:
    for changes in ({}, {"rotation_representation": "6d", "frames_per_token": 2}, {"include_hands": True}):
        model = tiny_denoiser(**changes)
        for decoder in model.decoders.values():
            decoder[-1].weight.data.zero_()
        R = MotionState.unpack(model(*inputs(model)).sample, model.state_layout, project=False).local_rotmats
        assert_close(R, torch.eye(3).expand_as(R))


@pytest.mark.parametrize("cond_param", PARAMETERIZATIONS)
def test_every_parameterization_fits_the_network(cond_param: str) -> None:
    model = denoiser(cond_param=cond_param, include_canonicalized_cpf_rotation_in_cond=False)
    assert model(*inputs(model)).sample.shape == (2, 10, 226)


def test_unknown_hands_are_zeros() -> None:
    model = denoiser(include_hand_positions_cond=True)
    head = heads(2, 10)
    assert torch.equal(model.condition(head), model.condition(head, torch.zeros(2, 10, 6)))
    assert not torch.equal(model.condition(head), model.condition(head, torch.ones(2, 10, 6)))
    assert torch.equal(denoiser().condition(head), denoiser().condition(head, torch.ones(2, 10, 6)))


# ---- frames a token


@pytest.mark.parametrize("frames", [1, 7, 8])
def test_tokens_of_several_frames_fit_any_length(frames: int) -> None:
    model = denoiser(frames_per_token=4, rotation_representation="6d")
    sample, timestep, cond = inputs(model, frames=8)
    out = model(sample[:, :frames], timestep, cond[:, :frames]).sample
    assert out.shape == (2, frames, 163)
    full = -frames % 4
    repeated = [torch.cat([x[:, :frames], x[:, frames - 1 : frames].expand(-1, full, -1)], 1) for x in (sample, cond)]
    assert_close(out, model(repeated[0], timestep, repeated[1]).sample[:, :frames], rtol=0.0, atol=1e-5)


def test_tokens_of_several_frames_keep_frames_in_order() -> None:
    model = denoiser(frames_per_token=4)
    sample, timestep, cond = inputs(model, frames=8)
    for decoder in model.decoders.values():
        size = decoder[-1].out_features // 4
        decoder[-1].weight.data.zero_()
        decoder[-1].bias.data.copy_(torch.arange(4.0).repeat_interleave(size))
    out = model(sample, timestep, cond).sample
    assert_close(out, torch.arange(4.0).repeat(2)[None, :, None].expand_as(out))


# ---- padding


def padded(model: EgoMotionDenoiser, real: int, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mask = (torch.arange(frames) < real).expand(2, frames)
    return *inputs(model, frames=frames), mask


@pytest.mark.parametrize(
    "changes",
    [
        {},
        TOKEN,
        {"frames_per_token": 4},
        {"output_low_pass": 1.5},
        {"positional_encoding": "transformer"},
        {"xattn_mode": "kv_from_x_q_from_cond"},
    ],
)
def test_masked_frames_do_not_reach_real_ones(changes: dict) -> None:
    model = denoiser(mask_self_attention=True, **changes)
    sample, timestep, cond, mask = padded(model, real=8, frames=16)
    short = model(sample[:, :8], timestep, cond[:, :8]).sample
    long = model(sample, timestep, cond, mask).sample
    assert_close(long[:, :8], short, rtol=0.0, atol=1e-5)
    assert long.isfinite().all()


def test_a_token_exists_when_one_of_its_frames_does() -> None:
    model = denoiser(mask_self_attention=True, frames_per_token=4)
    sample, timestep, cond, mask = padded(model, real=5, frames=12)
    long = model(sample, timestep, cond, mask).sample
    assert_close(long[:, :8], model(sample[:, :8], timestep, cond[:, :8]).sample, rtol=0.0, atol=1e-5)


def test_egoallo_masks_cross_attention_only() -> None:
    model = denoiser()
    sample, timestep, cond, mask = padded(model, real=8, frames=16)
    masked = model(sample, timestep, cond, mask).sample
    assert not torch.allclose(masked, model(sample, timestep, cond).sample, atol=1e-4)
    other = torch.where(mask[..., None], sample, sample + 1)
    assert not torch.allclose(model(other, timestep, cond, mask).sample[:, :8], masked[:, :8], atol=1e-4)


@pytest.mark.parametrize("changes", [{}, TOKEN, {"mask_self_attention": True, "frames_per_token": 4}])
def test_a_mask_that_hides_nothing_changes_nothing(changes: dict) -> None:
    model = denoiser(**changes)
    sample, timestep, cond = inputs(model)
    mask = torch.ones(2, 10, dtype=torch.bool)
    assert_close(model(sample, timestep, cond, mask).sample, model(sample, timestep, cond).sample, rtol=0.0, atol=1e-5)


# ---- the encoder, once a trajectory


@pytest.mark.parametrize("changes", [{}, TOKEN, {"noise_in_encoder": True}, {"frames_per_token": 4}])
def test_passing_the_encoding_is_the_same_as_not(changes: dict) -> None:
    model = denoiser(mask_self_attention=True, **changes)
    sample, timestep, cond, mask = padded(model, real=8, frames=12)
    for frames in (mask, None):
        level = timestep if model.config.noise_in_encoder else None
        encoded = model.encode(cond, level, frames)
        assert torch.equal(
            model(sample, timestep, cond, frames, encoded=encoded).sample, model(sample, timestep, cond, frames).sample
        )


def test_encoder_sees_the_noise_only_where_it_should() -> None:
    blind, seeing = denoiser(), denoiser(noise_in_encoder=True)
    _, _, cond = inputs(blind)
    low, high = torch.tensor([1, 1]), torch.tensor([900, 900])
    assert torch.equal(blind.encode(cond, low), blind.encode(cond, high))
    assert not torch.allclose(seeing.encode(cond, low), seeing.encode(cond, high), atol=1e-3)


# ---- head features on one scale


def test_condition_statistics_standardize_the_features() -> None:
    model = denoiser(normalize_cond=True)
    sample, timestep, cond = inputs(model, frames=60)
    before = model(sample, timestep, cond).sample
    model.set_condition_statistics(cond)
    flat = cond.flatten(0, 1).double()
    assert_close(model.cond_mean, flat.mean(0).float())
    assert_close(model.cond_std, flat.std(0).clamp(min=1e-3).float())
    assert float(model.cond_std.min()) == pytest.approx(1e-3)
    assert not torch.allclose(model(sample, timestep, cond).sample, before, atol=1e-3)
    plain = denoiser()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("cond_")})
    standard = (cond - model.cond_mean) / model.cond_std
    assert_close(model(sample, timestep, cond).sample, plain(sample, timestep, standard).sample, rtol=0.0, atol=1e-5)


# ---- the low pass at the end


def test_low_pass_is_a_gaussian_mean_over_real_frames() -> None:
    model = denoiser(output_low_pass=1.5, mask_self_attention=True)
    plain = denoiser(mask_self_attention=True)
    plain.load_state_dict(model.state_dict())
    sample, timestep, cond, mask = padded(model, real=9, frames=12)
    raw = plain(sample, timestep, cond, mask).sample.detach().numpy()
    frames = np.arange(12)
    weights = np.exp(-0.5 * ((frames[:, None] - frames) / 1.5) ** 2) * (frames < 9)
    expected = (weights / weights.sum(1, keepdims=True)) @ raw
    assert_close(model(sample, timestep, cond, mask).sample, torch.from_numpy(expected).float(), rtol=0.0, atol=1e-5)


def test_low_pass_far_inside_the_padding_is_finite() -> None:
    model = denoiser(output_low_pass=0.5, mask_self_attention=True)
    sample, timestep, cond, mask = padded(model, real=1, frames=40)
    assert model(sample, timestep, cond, mask).sample.isfinite().all()


# ---- training


def gradients(model: EgoMotionDenoiser, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    model(*batch).sample.square().sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("changes", [TOKEN, {"dropout_p": 0.3}])
def test_gradient_checkpointing_changes_no_gradient(changes: dict) -> None:
    model = denoiser(num_encoder_layers=2, num_decoder_layers=2, **changes).train()
    batch = inputs(model)
    torch.manual_seed(1)
    plain = gradients(model, batch)
    model.enable_gradient_checkpointing()
    runs = []
    for layer in (*model.encoder_layers, *model.decoder_layers):
        layer.register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(1)
    checkpointed = gradients(model, batch)
    assert len(runs) == 8  # each of the four layers is run again on the way back
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys()
    for name, value in plain.items():
        assert_close(checkpointed[name], value, msg=name)


def test_dropout_is_for_training_only() -> None:
    model = denoiser(dropout_p=0.5)
    batch = inputs(model)
    assert torch.equal(model(*batch).sample, model(*batch).sample)
    model.train()
    assert not torch.equal(model(*batch).sample, model(*batch).sample)


def test_lora_trains_the_adapter_and_starts_at_the_base_model(tmp_path) -> None:
    model = denoiser()
    batch = inputs(model)
    base = model(*batch).sample
    targets = ["sattn_qkv_proj", "sattn_out_proj", "xattn_q_proj", "xattn_kv_proj", "xattn_out_proj", "mlp0", "mlp1"]
    model.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets))
    assert torch.equal(model(*batch).sample, base)
    trained = gradients(model, batch)
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value += 0.1
    adapted = model(*batch).sample
    assert not torch.allclose(adapted, base, atol=1e-3)
    model.save_lora_adapter(tmp_path)
    model.disable_adapters()
    assert torch.equal(model(*batch).sample, base)
    model.enable_adapters()
    assert torch.equal(model(*batch).sample, adapted)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


# ---- precision


@pytest.mark.parametrize("changes", [TOKEN, {"frames_per_token": 4, "output_low_pass": 1.5, "normalize_cond": True}])
def test_bfloat16_is_a_coarse_float32(changes: dict, tmp_path, caplog) -> None:
    model = denoiser(**changes)
    sample, timestep, cond = inputs(model, frames=12)
    if model.config.normalize_cond:
        model.set_condition_statistics(cond)
    model.save_pretrained(tmp_path)
    exact = model(sample, timestep, cond).sample
    loaded = EgoMotionDenoiser.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    caplog.set_level(logging.ERROR)
    for coarse in (loaded, model.to(torch.bfloat16)):
        assert coarse.dtype == torch.bfloat16
        out = coarse(sample, timestep, cond).sample
        assert out.dtype == torch.bfloat16
        assert (out - exact).abs().max() < 0.03 * exact.abs().max()


def test_statistics_keep_float32_when_the_weights_are_cast() -> None:
    model = denoiser(normalize_cond=True)
    model.set_condition_statistics(1 + 1e-4 * torch.randn(50, 154))
    mean = model.cond_mean.clone()
    cast = model.to(torch.bfloat16).half().float()
    assert torch.equal(cast.cond_mean, mean)
    assert cast.to("meta").cond_mean.device.type == "meta"


# ---- options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_conditioning": "token"}, "noise_in_encoder=False needs noise_conditioning='film'"),
        ({"d_latent": 20, "num_heads": 4}, "d_latent 20 must be divisible by twice num_heads 4"),
        ({"cond_param": "theirs"}, "cond_param is 'theirs'; it must be one of ours, canonicalized"),
        ({"activation": "swish"}, "activation is 'swish'; it must be one of gelu, relu"),
        ({"noise_conditioning": "adaln"}, "noise_conditioning is 'adaln'"),
        ({"positional_encoding": "alibi"}, "positional_encoding is 'alibi'"),
        ({"xattn_mode": "none"}, "xattn_mode is 'none'"),
        ({"rotation_representation": "quaternion"}, "rotation_representation is 'quaternion'"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_options_that_contradict_or_are_unknown_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_denoiser(**changes)


# ---- the pieces


def test_rotary_embedding_by_hand_and_relative() -> None:
    x = torch.zeros(1, 1, 3, 4)
    x[..., 0] = 1.0
    x[..., 2] = 1.0
    position = torch.arange(3.0)
    expected = torch.stack([position.cos(), position.sin(), (position / 100).cos(), (position / 100).sin()], -1)
    assert_close(rotate(x)[0, 0], expected)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(-1, -1, -1, 6, -1)
    scores = (rotate(q) @ rotate(k).mT)[0, 0]
    assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=0.0, atol=1e-5)


def test_rotary_embedding_is_the_same_to_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 7, 8)
    expected = rotate(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_close(rotate(x), expected)


def test_sinusoids_by_hand() -> None:
    expected = [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]]
    assert_close(sinusoids(2, 4), torch.tensor(expected, dtype=torch.float32))
    assert sinusoids(3, 5).shape == (3, 5)
