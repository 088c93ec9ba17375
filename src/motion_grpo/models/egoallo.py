"""Reads EgoAllo's released checkpoint folders: an accelerate ``save_state`` plus a YAML that names a Python object."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motion_grpo.models.transformer import rotary_frequencies


class _ConfigLoader(yaml.SafeLoader):
    """Takes ``!!python/object:...`` for the plain mapping that follows it; no object is ever built."""


_ConfigLoader.add_multi_constructor(
    "tag:yaml.org,2002:python/object", lambda loader, suffix, node: loader.construct_mapping(node, deep=True)
)


class EgoAlloCheckpoint(NamedTuple):
    """What such a folder holds."""

    config_path: Path
    settings: dict[str, Any]
    """Arguments of :class:`~motion_grpo.models.EgoMotionDenoiser`."""
    weights_path: Path
    weights: dict[str, Tensor]


def read_egoallo(folder: str | Path) -> EgoAlloCheckpoint:
    """Settings and weights of an EgoAllo checkpoint.

    Args:
        folder: the folder that holds ``model_config.yaml`` and ``checkpoints_*/model.safetensors`` (the newest is
            taken), or one such ``checkpoints_*`` folder itself.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: settings that are not plain YAML, weights that are a pickle or damaged.
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
        config = _ConfigLoader(config_path.read_text()).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{config_path} is not plain YAML settings: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{config_path} holds no mapping of settings.")
    # diffusers answers model.NAME with a setting of that name, so a setting must not be called as the layers are.
    settings = {f"num_{k}" if k in ("encoder_layers", "decoder_layers") else k: v for k, v in config.items()}
    try:
        weights = load_file(weights_path)
    except SafetensorError as error:
        raise ValueError(f"{weights_path} is not a safetensors file: {error}") from error
    return EgoAlloCheckpoint(config_path, settings, weights_path, weights)


def _step_of(folder: Path) -> int:
    step = folder.name.rsplit("_", 1)[-1]
    return int(step) if step.isdecimal() else -1


def without_rotary(weights: dict[str, Tensor], head_dim: int, path: Path) -> dict[str, Tensor]:
    """Drops the stored rotary frequencies, which are constants here, after checking that they are the same ones."""
    frequencies = rotary_frequencies(head_dim)
    kept = {}
    for name, value in weights.items():
        if name.endswith("rotary_emb.freqs"):
            if value.shape != frequencies.shape or not torch.allclose(value, frequencies, rtol=1e-4):
                raise ValueError(f"{path}: {name} holds rotary frequencies that are not those of theta 10000.")
        else:
            kept[name] = value
    return kept
