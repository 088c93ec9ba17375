"""Reads EgoAllo's released checkpoint folders: an accelerate ``save_state`` plus a YAML that names a Python object."""

from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motion_grpo.models.denoiser import EgoMotionDenoiser
from motion_grpo.models.transformer import rotary_frequencies


class _ConfigLoader(yaml.SafeLoader):
    """Takes ``!!python/object:...`` for the plain mapping that follows it; no object is ever built."""


_ConfigLoader.add_multi_constructor(
    "tag:yaml.org,2002:python/object", lambda loader, suffix, node: loader.construct_mapping(node, deep=True)
)


def load_egoallo(folder: str | Path) -> EgoMotionDenoiser:
    """A denoiser with EgoAllo's configuration and weights.

    Args:
        folder: the folder that holds ``model_config.yaml`` and ``checkpoints_*/model.safetensors`` (the newest is taken),
            or one such ``checkpoints_*`` folder itself.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: weights that are missing, unexpected, of a wrong shape, or a pickle; settings that are not plain YAML or
            that the network does not know.
    """
    folder = Path(folder)
    root = folder.parent if folder.name.startswith("checkpoints_") else folder
    config_path = root / "model_config.yaml"
    if not config_path.is_file():
        raise FileNotFoundError(
            f"{config_path} is missing: an EgoAllo checkpoint folder holds it beside checkpoints_*/."
        )
    candidates = [folder] if folder != root else sorted(root.glob("checkpoints_*"), key=_step_of)
    weights_path = candidates[-1] / "model.safetensors" if candidates else root / "checkpoints_*" / "model.safetensors"
    if not weights_path.is_file():
        # optimizer.bin and the like lie beside the weights in any checkpoint; these would be the weights themselves.
        pickles = sorted(p for c in candidates for p in c.glob("pytorch_model*.bin"))
        if pickles:
            raise ValueError(f"{pickles[0]} is a pickle, which is never loaded; convert it to model.safetensors first.")
        raise FileNotFoundError(f"{weights_path} is missing.")
    try:
        config = yaml.load(config_path.read_text(), Loader=_ConfigLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{config_path} is not plain YAML settings: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{config_path} holds no mapping of settings.")
    # diffusers answers model.NAME with a setting of that name, so a setting must not be called as the layers are.
    renamed = {f"num_{k}" if k in ("encoder_layers", "decoder_layers") else k: v for k, v in config.items()}
    try:
        model = EgoMotionDenoiser(**renamed)
    except TypeError as error:
        raise ValueError(f"{config_path} has a setting that EgoAllo's network does not know: {error}") from error
    try:
        weights = load_file(weights_path)
    except SafetensorError as error:
        raise ValueError(f"{weights_path} is not a safetensors file: {error}") from error
    _load_exactly(model, _without_rotary(weights, weights_path, model), weights_path)
    return model.eval()


def _step_of(folder: Path) -> int:
    step = folder.name.rsplit("_", 1)[-1]
    return int(step) if step.isdecimal() else -1


def _without_rotary(weights: dict[str, Tensor], path: Path, model: EgoMotionDenoiser) -> dict[str, Tensor]:
    """Drops the stored rotary frequencies, which are constants here, after checking that they are the same ones."""
    frequencies = rotary_frequencies(model.config.d_latent // model.config.num_heads)
    kept = {}
    for name, value in weights.items():
        if name.endswith("rotary_emb.freqs"):
            if value.shape != frequencies.shape or not torch.allclose(value, frequencies, rtol=1e-4):
                raise ValueError(f"{path}: {name} holds rotary frequencies that are not those of theta 10000.")
        else:
            kept[name] = value
    return kept


def _load_exactly(model: EgoMotionDenoiser, weights: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or extra:
        raise ValueError(f"{path} does not fit its configuration: missing {missing[:3]}, unexpected {extra[:3]}.")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}.")
    model.load_state_dict(weights)
