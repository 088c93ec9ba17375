import pickle
from pathlib import Path

import jaxtyping
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.models.transformer import rotary_frequencies
from tests.body.smplh import Unpickled
from tests.tiny import GOLDEN, tiny_denoiser

TOKEN_ROPE = GOLDEN / "egoallo_token_rope"
TAG = "!!python/object:egoallo.network.EgoDenoiserConfig\n"
SETTINGS = {
    "d_latent": 16, "d_feedforward": 16, "d_noise_emb": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1,
    "noise_conditioning": "film", "include_hands": False,
}  # fmt: skip


def weights(**changes: Tensor | None) -> dict[str, Tensor]:
    state = tiny_denoiser(noise_in_encoder=True).state_dict()
    state["encoder_layers.0.rotary_emb.freqs"] = rotary_frequencies(8)
    state = {name: value.contiguous() for name, value in state.items()} | changes
    return {name: value for name, value in state.items() if value is not None}


def checkpoint(root: Path, step: int | str = 10, settings: dict | str = SETTINGS, **changes: Tensor | None) -> Path:
    """A folder as EgoAllo writes it."""
    folder = root / f"checkpoints_{step}"
    folder.mkdir(parents=True)
    save_file(weights(**changes), folder / "model.safetensors")
    text = settings if isinstance(settings, str) else TAG + yaml.safe_dump(settings)
    (root / "model_config.yaml").write_text(text)
    return root


# ---- what is read


def test_reads_settings_and_weights() -> None:
    model = EgoMotionDenoiser.from_egoallo(TOKEN_ROPE)
    stored = load_file(TOKEN_ROPE / "checkpoints_3000000" / "model.safetensors")
    assert not model.training
    assert model.config.num_encoder_layers == 2
    assert model.config.d_latent == 64
    assert (model.config.noise_in_encoder, model.config.mask_self_attention) == (True, False)
    kept = {name: value for name, value in stored.items() if not name.endswith("rotary_emb.freqs")}
    state = model.state_dict()
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_saved_the_hugging_face_way_it_computes_the_same(tmp_path) -> None:
    model = EgoMotionDenoiser.from_egoallo(TOKEN_ROPE)
    model.save_pretrained(tmp_path)
    loaded = EgoMotionDenoiser.from_pretrained(tmp_path)
    golden = load_file(GOLDEN / "denoiser_token_rope.io.safetensors")
    with torch.no_grad():
        ours, theirs = (m(golden["x_t"], golden["t"], golden["cond"], golden["mask"]).sample for m in (model, loaded))
    assert torch.equal(ours, theirs)
    assert loaded.config.d_feedforward == 128


def test_newest_checkpoint_is_taken_unless_one_is_named(tmp_path) -> None:
    def marked(value):
        return {"noise_emb.weight": torch.full((1000, 8), value)}

    checkpoint(tmp_path, 900, **marked(1.0))
    checkpoint(tmp_path, 10_000, **marked(2.0))
    checkpoint(tmp_path, "old", **marked(3.0))
    assert EgoMotionDenoiser.from_egoallo(tmp_path).noise_emb.weight[0, 0] == 2.0
    assert EgoMotionDenoiser.from_egoallo(str(tmp_path / "checkpoints_900")).noise_emb.weight[0, 0] == 1.0


def test_settings_that_a_file_leaves_out_are_egoallos(tmp_path) -> None:
    short = {key: value for key, value in SETTINGS.items() if key != "num_heads"}
    freqs = {"encoder_layers.0.rotary_emb.freqs": rotary_frequencies(4)}  # of four heads
    assert EgoMotionDenoiser.from_egoallo(checkpoint(tmp_path, settings=short, **freqs)).config.num_heads == 4


def test_plain_yaml_without_a_tag_will_do(tmp_path) -> None:
    assert EgoMotionDenoiser.from_egoallo(checkpoint(tmp_path, settings=yaml.safe_dump(SETTINGS))).config.d_latent == 16


# ---- what is never run


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {trace}']\n",
        "!!python/object/apply:os.system\nargs: ['touch {trace}']\n",
        "d_latent: !!python/object/apply:os.system ['touch {trace}']\n",
        "!!python/object/new:os.system ['touch {trace}']\n",
        "!!python/object/new:pathlib.Path\nargs: ['{trace}']\nstate: {{}}\n",
        "activation: !!python/name:os.system\n",
        "activation: !!python/module:os\n",
        "d_latent: !!python/tuple [1, 2]\n",
        "!!python/object:os.system 3\n",
    ],
)
def test_python_tags_are_never_executed(text: str, tmp_path) -> None:
    trace = tmp_path / "trace"
    checkpoint(tmp_path, settings=text.format(trace=trace))
    with pytest.raises(ValueError, match=r"model_config\.yaml"):
        EgoMotionDenoiser.from_egoallo(tmp_path)
    assert not trace.exists()


def test_reading_settings_leaves_pyyaml_as_it_was() -> None:
    EgoMotionDenoiser.from_egoallo(TOKEN_ROPE)
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load(TAG + "d_latent: 1")


def test_pickled_weights_are_refused_without_unpickling(tmp_path) -> None:
    trace = tmp_path / "trace"
    path = checkpoint(tmp_path) / "checkpoints_10" / "model.safetensors"
    path.write_bytes(pickle.dumps(Unpickled(trace)))
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        EgoMotionDenoiser.from_egoallo(tmp_path)
    path.rename(path.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is a pickle, which is never loaded"):
        EgoMotionDenoiser.from_egoallo(tmp_path)
    assert not trace.exists()


# ---- what is refused


def test_missing_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.model_config\.yaml is missing"):
        EgoMotionDenoiser.from_egoallo(tmp_path / "nowhere")
    root = checkpoint(tmp_path / "run")
    weights_path = root / "checkpoints_10" / "model.safetensors"
    weights_path.unlink()
    # A checkpoint of accelerate holds these pickles in any case: they are not the weights.
    (root / "checkpoints_10" / "optimizer.bin").touch()
    (root / "checkpoints_10" / "random_states_0.pkl").touch()
    for folder in (root, root / "checkpoints_10"):
        with pytest.raises(FileNotFoundError, match=r"checkpoints_10.model\.safetensors is missing"):
            EgoMotionDenoiser.from_egoallo(folder)
    (root / "checkpoints_10").rename(root / "other")
    with pytest.raises(FileNotFoundError, match=r"checkpoints_\*.model\.safetensors is missing"):
        EgoMotionDenoiser.from_egoallo(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_emb.weight": torch.zeros(1000, 9)}, r"noise_emb\.weight has shape \(1000, 9\), not \(1000, 8\)"),
        ({"noise_emb.weight": None}, r"missing \['noise_emb\.weight'\], unexpected \[\]"),
        ({"ema.weight": torch.zeros(3)}, r"missing \[\], unexpected \['ema\.weight'\]"),
        ({"encoder_layers.0.rotary_emb.freqs": torch.ones(4)}, "not those of theta 10000"),
        ({"encoder_layers.0.rotary_emb.freqs": torch.ones(3)}, "not those of theta 10000"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes: dict, message: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=rf"model\.safetensors.*{message}"):
        EgoMotionDenoiser.from_egoallo(checkpoint(tmp_path, **changes))


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "text"])
def test_damaged_weights_are_refused(damage: str, tmp_path) -> None:
    path = checkpoint(tmp_path) / "checkpoints_10" / "model.safetensors"
    content = path.read_bytes()
    damaged = {
        "truncated": content[: len(content) // 2],
        "header": b"\xff" * 8 + content[8:],
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        EgoMotionDenoiser.from_egoallo(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("- a\n- b\n", "holds no mapping of settings"),
        ("", "holds no mapping of settings"),
        ("a: [1, 2\n", "is not plain YAML settings"),
        (SETTINGS | {"d_model": 3}, "has a setting that EgoAllo's network does not know.*d_model"),
        (SETTINGS | {"cond_param": "theirs"}, "cond_param is 'theirs'"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings: dict | str, message: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        EgoMotionDenoiser.from_egoallo(checkpoint(tmp_path, settings=settings))


def test_unknown_values_are_refused_without_the_shape_checker(tmp_path) -> None:
    root = checkpoint(tmp_path, settings=SETTINGS | {"noise_conditioning": "adaln"})
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="noise_conditioning is 'adaln'; it must be one of token, film"):
            EgoMotionDenoiser.from_egoallo(root)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
