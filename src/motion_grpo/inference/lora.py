"""LoRA adapters of a pipeline, by diffusers' verbs: loaded, saved and pushed here; switched and fused by diffusers."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE, LoraBaseMixin
from safetensors import safe_open
from torch import Tensor, nn

from motion_grpo.extras import extra
from motion_grpo.files import whole_file
from motion_grpo.hub import LOAD_OPTIONS, PUSH_OPTIONS, check_repo, fetch, push_with_card, refuse_damaged
from motion_grpo.models.adapters import refuse_foreign_adapter

_CARD = """---
library_name: diffusers
tags: [motion, egocentric, smpl-h, diffusers, lora]
---

# {repo_id}

A LoRA adapter of motion-grpo's denoiser. Nothing was stated about its base, its training, its results or its license.

```python
from motion_grpo import EgoMotionPipeline

pipe = EgoMotionPipeline.from_pretrained("BASE")
pipe.load_lora_weights("{repo_id}")
```
"""


class LoraMixin(LoraBaseMixin):
    """diffusers' verbs for the adapters of a pipeline with a ``denoiser``.

    ``set_adapters``, ``get_list_adapters``, ``delete_adapters``, ``unload_lora_weights`` and so on are diffusers' own.
    All need the extra ``lora``.
    """

    denoiser: Any
    """The network; an :class:`EgoMotionDenoiser`, which takes adapters."""
    _lora_loadable_modules = ["denoiser"]  # noqa: RUF012  (diffusers' name)

    @classmethod
    def lora_state_dict(
        cls,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | Mapping[str, Tensor],
        *,
        weight_name: str = LORA_WEIGHT_NAME_SAFE,
        subfolder: str = "",
        use_safetensors: bool = True,
        return_lora_metadata: bool = False,
        **options: Any,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Any] | None]:
        """Weights of an adapter by peft's names, those of the denoiser's layers behind ``denoiser.``.

        Args:
            pretrained_model_name_or_path_or_dict: a file of safetensors, a folder, a Hub id, or the weights themselves.
                What ``denoiser.save_lora_adapter`` wrote will do too, and a GRPO run with ``lora_r`` leaves beside its
                pipeline.
            weight_name: file in the folder or repository.
            subfolder: folder of it.
            use_safetensors: True; pickles are never loaded.
            return_lora_metadata: whether to return peft's configuration too, None where the file has none.
            options: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no safetensors, damaged ones, or weights that are not those of an adapter.
        """
        if not use_safetensors:
            raise ValueError("use_safetensors=False would load a pickle; adapters are loaded from safetensors only.")
        source, metadata = pretrained_model_name_or_path_or_dict, None
        if isinstance(source, Mapping):
            weights = dict(source)
        else:
            path = _find(os.fspath(source), weight_name, subfolder, options)
            refuse_damaged(path)
            with safe_open(path, "pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
                metadata = json.loads((file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "null"))
        if foreign := [name for name in weights if "lora" not in name]:
            raise ValueError(f"{_shown(source)} is no adapter of this network: {foreign[0]} is no weight of a LoRA.")
        if any(".lora_" in name for name in weights) and not any(name.startswith("denoiser.") for name in weights):
            weights = {f"denoiser.{name}": weight for name, weight in weights.items()}
            metadata = metadata and {f"denoiser.{name}": value for name, value in metadata.items()}
        return (weights, metadata) if return_lora_metadata else weights

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | Mapping[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        low_cpu_mem_usage: bool = False,
        **options: Any,
    ) -> None:
        """Adds a LoRA adapter to the denoiser, switched on.

        Args:
            pretrained_model_name_or_path_or_dict: as for :meth:`lora_state_dict`.
            adapter_name: to tell several apart; a new one when None.
            hotswap: put it in the place of the one that is called so.
            low_cpu_mem_usage: leave out drawing weights that are replaced at once.
            options: of :meth:`lora_state_dict`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no safetensors, damaged ones, or an adapter of another network.
            ImportError: the extra ``lora`` is not installed.
        """
        with extra("lora"):
            import peft  # noqa: F401
        source = pretrained_model_name_or_path_or_dict
        weights, metadata = self.lora_state_dict(source, return_lora_metadata=True, **options)
        own = {n.removeprefix("denoiser."): weight for n, weight in weights.items() if n.startswith("denoiser.")}
        refuse_foreign_adapter(_shown(source), own, self.denoiser)
        self.denoiser.load_lora_adapter(
            weights,
            prefix="denoiser",
            adapter_name=adapter_name,
            metadata=metadata,
            hotswap=hotswap,
            low_cpu_mem_usage=low_cpu_mem_usage,
            _pipeline=self,
        )
        self.denoiser.eval()

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | os.PathLike,
        denoiser_lora_layers: Mapping[str, Tensor] | nn.Module | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        safe_serialization: bool = True,
        denoiser_lora_adapter_metadata: dict[str, Any] | None = None,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **push: Any,
    ) -> None:
        """Writes an adapter, without the denoiser's own weights, to ``pytorch_lora_weights.safetensors`` of a folder.

        Args:
            save_directory: the folder.
            denoiser_lora_layers: ``peft.utils.get_peft_model_state_dict(pipe.denoiser, adapter_name=...)``.
            is_main_process: whether this process is the one of several that writes.
            weight_name: another name of the file.
            safe_serialization: True; pickles are never written.
            denoiser_lora_adapter_metadata: ``pipe.denoiser.peft_config[adapter_name].to_dict()``. Without it an adapter
                whose ``lora_alpha`` is not its rank comes back with another scale.
            push_to_hub: upload the folder too, with all that it holds.
            repo_id: where to; the folder's name when None.
            push: ``private``, ``token``, ``revision``, ``commit_message`` and ``create_pr`` of
                :func:`~motion_grpo.hub.push_folder`.

        Raises:
            ValueError: no layers, a pickle, or as for :func:`~motion_grpo.hub.push_folder`.
            OSError: likewise.
        """
        if not denoiser_lora_layers:
            raise ValueError(
                "denoiser_lora_layers is empty; pass peft.utils.get_peft_model_state_dict(pipe.denoiser) after an "
                "adapter was added or loaded."
            )
        weight_name = weight_name or LORA_WEIGHT_NAME_SAFE
        if not safe_serialization or not weight_name.endswith(".safetensors"):
            raise ValueError("An adapter is saved as safetensors only, never as a pickle.")
        unknown = sorted(set(push) - set(PUSH_OPTIONS))
        if unknown:
            raise TypeError(f"save_lora_weights knows no option {unknown[0]!r}.")
        if not is_main_process:
            return
        folder = Path(save_directory)
        if push_to_hub:
            checked = {key: push[key] for key in ("private", "token") if key in push}
            repo_id = check_repo(repo_id or folder.resolve().name, **checked)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / weight_name) as temporary:
            cls._save_lora_weights(
                folder,
                {"denoiser": denoiser_lora_layers},
                {"denoiser": denoiser_lora_adapter_metadata},
                weight_name=temporary.name,
            )
        if push_to_hub:
            push |= {"commit_message": push.get("commit_message") or "Upload LoRA adapter"}
            push_with_card(folder, repo_id, _CARD.format(repo_id=repo_id), **push)

    def fuse_lora(
        self,
        components: Sequence[str] = ("denoiser",),
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
        **options: Any,
    ) -> None:
        """Adds the adapters to the denoiser's weights, after which ``unload_lora_weights()`` keeps them."""
        super().fuse_lora(list(components), lora_scale, safe_fusing, adapter_names, **options)

    def unfuse_lora(self, components: Sequence[str] = ("denoiser",), **options: Any) -> None:
        """Undoes :meth:`fuse_lora`."""
        super().unfuse_lora(components=list(components), **options)


def _find(name: str, weight_name: str, subfolder: str, options: dict[str, Any]) -> Path:
    """The file of an adapter, fetched where it is not here."""
    unknown = sorted(set(options) - set(LOAD_OPTIONS))
    if unknown:
        raise TypeError(f"load_lora_weights knows no option {unknown[0]!r}.")
    if Path(name).is_file():
        _refuse_pickle(name)
        return Path(name)
    _refuse_pickle(weight_name)
    file = str(Path(subfolder) / weight_name)
    folder = Path(name) if Path(name).is_dir() else fetch(name, [file], **options)
    if not (folder / file).is_file():
        raise FileNotFoundError(f"{name} holds no adapter: it has no {file}.")
    return folder / file


def _refuse_pickle(name: str) -> None:
    if not name.endswith(".safetensors"):
        raise ValueError(f"{name} is not named as safetensors are; adapters are loaded from safetensors only.")


def _shown(source: object) -> str:
    return "The state dict" if isinstance(source, Mapping) else str(source)
