"""What the networks share beside diffusers' mixins: loading that leaves nothing to chance, statistics in float32."""

import json
import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import FrozenDict
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from motion_grpo.hub import HubMixin, fetch_component

_EMBEDDED = Path(__file__).parents[1] / "checkpoints"
_DIFFUSERS_LOGGER = logging.getLogger("diffusers.models.modeling_utils")


def fetches_weights(method: Callable[..., Any]) -> Callable[..., Any]:
    """For a method that is called beside ``forward``: brings the network's own weights here where they are offloaded.

    diffusers' ``apply_forward_hook`` does so where accelerate offloads, but not where diffusers itself does, by groups.
    """
    method = apply_forward_hook(method)

    @wraps(method)
    def fetching(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hooks = self.__dict__.get("_diffusers_hook")
        group = hooks and hooks.get_hook("group_offloading")
        if group:
            group.pre_forward(self)
        return method(self, *args, **kwargs)

    return fetching


class NetworkConfig(FrozenDict):
    """A network's configuration with the two methods of transformers' that callbacks for trackers call."""

    def to_dict(self) -> dict[str, Any]:
        """Its entries."""
        return dict(self)

    def to_json_string(self) -> str:
        """Its entries as JSON."""
        return json.dumps(dict(self), indent=2, default=str) + "\n"


if TYPE_CHECKING:

    class _Base(HubMixin, ModelMixin): ...

else:
    _Base = HubMixin


class MotionModelMixin(_Base):
    """Comes before ModelMixin among the bases of a network."""

    _shipped_as: str | None = None
    """Name of the checkpoint that ships with the package and is loaded where none is named."""
    statistics: tuple[str, ...] = ()
    """Names of the parameters that are measured on the data and not trained."""

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
        # diffusers raises at the first weight of another shape, unless it is told to go on and report them all.
        kwargs["ignore_mismatched_sizes"] = True
        model, info = super().from_pretrained(folder, output_loading_info=True, **kwargs)
        if mismatched := sorted(info["mismatched_keys"]):
            weight, stored, expected = mismatched[0]
            raise ValueError(
                f"{name} does not fit its config.json: {weight} has shape {tuple(stored)}, not {tuple(expected)}."
            )
        if missing := sorted(info["missing_keys"]):
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ValueError(f"{name} lacks {len(missing)} weights that its config.json asks for: {names}.")
        if kwargs.get("low_cpu_mem_usage") is False:
            # diffusers takes all weights to be of the dtype of the first in the file, which may be a statistic.
            model.to(kwargs.get("torch_dtype") or kwargs["dtype"])
        model.register_to_config(_name_or_path=str(given))
        return (model, info) if with_info else model

    def register_to_config(self, **kwargs: Any) -> None:
        """Adds entries to the configuration."""
        super().register_to_config(**kwargs)
        self._internal_dict = NetworkConfig(self._internal_dict)

    def _register_statistic(self, name: str, value: Tensor) -> None:
        """Adds float32 numbers that are measured on the data, stored with the weights and never trained.

        They are parameters: offloading moves those, and leaves buffers as the constructor made them.
        """
        self.register_parameter(name, nn.Parameter(value.float(), requires_grad=False))
        self.statistics = (*self.statistics, name)

    @classmethod
    def _load_pretrained_model(cls, model: "MotionModelMixin", *args: Any, **kwargs: Any) -> Any:
        # diffusers' _keep_in_fp32_modules would do this, forbid low_cpu_mem_usage=False and warn of every cast.
        kwargs["keep_in_fp32_modules"] = list(model.statistics)
        return super()._load_pretrained_model(model, *args, **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> "MotionModelMixin":
        """Moves and casts; diffusers' warning that statistics would lose precision is left out, since they do not."""
        level = _DIFFUSERS_LOGGER.level
        if any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values())):
            _DIFFUSERS_LOGGER.setLevel(logging.ERROR)
        try:
            return super().to(*args, **kwargs)
        finally:
            _DIFFUSERS_LOGGER.setLevel(level)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MotionModelMixin":
        """Moves and casts all but the statistics, which stay float32: bfloat16 cannot tell a millimetre from none."""
        before = {name: self.get_parameter(name).data for name in self.statistics}
        super()._apply(fn, recurse)
        for name, value in before.items():
            statistic = self.get_parameter(name)
            if statistic.dtype != value.dtype:
                statistic.data = value.to(statistic.device)
        return self
