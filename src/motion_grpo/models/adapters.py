"""Files of LoRA adapters, as diffusers writes them: safetensors with peft's names, its configuration in the header."""

from pathlib import Path

from safetensors import safe_open
from torch import nn

from motion_grpo.hub import refuse_damaged

_FACTORS = {"A.weight": 1, "B.weight": 0}
"""The factors of a layer's change, and which dimension each shares with the layer's weight."""


def refuse_foreign_adapter(path: Path, network: nn.Module) -> None:
    """Raises ValueError for an adapter of a network of other layers, or whose layers are of another size.

    Args:
        path: of the safetensors.
        network: what it should be added to, with other adapters or without.
    """
    refuse_damaged(path)
    layers = {
        name.removesuffix(".base_layer"): layer.weight.shape  # peft wraps a layer that has an adapter already
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    }
    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no dict)
    if not shapes:
        raise ValueError(f"{path} holds no adapter.")
    for name, shape in shapes.items():
        layer, _, factor = name.partition(".lora_")
        shared = _FACTORS.get(factor)
        if shared is None or layer not in layers or len(shape) != 2 or shape[shared] != layers[layer][shared]:
            raise ValueError(f"{path} is no adapter of this network: {name} {shape} does not fit.")
