"""What the networks share beside diffusers' mixins: loading that leaves nothing to chance, statistics in float32."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motion_grpo.hub import HubMixin, fetch_component

_EMBEDDED = Path(__file__).parents[1] / "checkpoints"


class MotionModelMixin(HubMixin):
    """Comes before ModelMixin among the bases of a network."""

    _shipped_as: str | None = None
    """Name of the checkpoint that ships with the package and is loaded where none is named."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None = None, **kwargs: Any) -> Any:
        """Loads what ``save_pretrained`` wrote: a folder, a Hub id, or the name of a checkpoint that ships.

        Args:
            pretrained_model_name_or_path: None is the one that ships, for a model that does so on its own.
            kwargs: diffusers' (``dtype``, ``revision``, ``subfolder``, ``token``, ...).

        Raises:
            ValueError: a weight that is missing from the file or of another shape than the configuration says
                (diffusers would draw missing ones at random), a pickle, or ``use_safetensors=False``.
            OSError: no such folder or repository, no safetensors, or a download that is not what the Hub has.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("use_safetensors=False would load a pickle; weights are read from safetensors only.")
        kwargs["use_safetensors"] = True
        with_info = kwargs.pop("output_loading_info", False)
        given = cls._shipped_as if pretrained_model_name_or_path is None else pretrained_model_name_or_path
        if given is None:
            raise ValueError(f"No {cls.__name__} ships on its own; name a folder or a Hub id.")
        name = os.fspath(given)
        if not Path(name).exists() and (_EMBEDDED / name / cls.config_name).is_file():
            name = str(_EMBEDDED / name)
        # Files in half precision are only a smaller way to store the same weights.
        if kwargs.get("torch_dtype") is None:
            kwargs.setdefault("dtype", torch.float32)
        try:
            folder = fetch_component(name, kwargs)
        except FileNotFoundError as error:
            if cls._shipped_as is None:
                raise
            ships = f"no model that ships with this package ({cls._shipped_as})"
            raise FileNotFoundError(f"{name!r} is no folder and {ships}, and {error}") from error
        try:
            model, info = super().from_pretrained(folder, output_loading_info=True, **kwargs)
        except ValueError as error:
            what, _, advice = str(error).partition(". If you want to instead overwrite randomly initialized weights")
            if not advice:
                raise
            raise ValueError(f"{name} does not fit its config.json: {what.rpartition(' because ')[2]}.") from error
        if missing := sorted(info["missing_keys"]):
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ValueError(f"{name} lacks {len(missing)} weights that its config.json asks for: {names}.")
        model.register_to_config(_name_or_path=str(given))
        return (model, info) if with_info else model

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MotionModelMixin":
        """Moves and casts all but the buffers, which stay float32: bfloat16 cannot tell a millimetre step from none."""
        buffers = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in buffers.items():
            if self._buffers[name].dtype != value.dtype:
                self._buffers[name] = value.to(self._buffers[name].device)
        return self
