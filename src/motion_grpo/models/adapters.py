"""LoRA adapters as peft names their weights, and whether they fit a network."""

from collections.abc import Mapping

from torch import Tensor, nn

# Which dimension of a factor of a layer's change is as long as which of the layer's weight (out, in).
_FACTORS = {
    "lora_A.weight": (1, 1),
    "lora_B.weight": (0, 0),
    "lora_B.bias": (0, 0),
    "lora_magnitude_vector": (0, 0),
    "lora_magnitude_vector.weight": (0, 0),
}


def refuse_foreign_adapter(source: str, weights: Mapping[str, Tensor], network: nn.Module) -> None:
    """Raises ValueError for an adapter of a network of other layers, or whose layers are of another size.

    Args:
        source: what it is called in the message.
        weights: by peft's names, which begin with those of the layers.
        network: what it should be added to, with other adapters or without.
    """
    layers = {
        name.removesuffix(".base_layer"): layer.weight.shape  # peft wraps a layer that has an adapter already
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    }
    for name, weight in weights.items():
        layer, lora, factor = name.partition(".lora_")
        if layer in layers and lora + factor in (f".{known}" for known in _FACTORS):
            dimension, of_layer = _FACTORS[f"lora_{factor}"]
            if weight.ndim > dimension and weight.shape[dimension] == layers[layer][of_layer]:
                continue
        raise ValueError(f"{source} is no adapter of this network: {name} {tuple(weight.shape)} does not fit.")
