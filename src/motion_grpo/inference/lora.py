"""LoRA adapters of a pipeline, by diffusers' verbs: loaded, saved and pushed here; switched and fused by diffusers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE, LoraBaseMixin

from motion_grpo.extras import extra
from motion_grpo.hub import LOAD_OPTIONS, PUSH_OPTIONS, check_repo, fetch, push_with_card
from motion_grpo.models.adapters import refuse_foreign_adapter

_CARD = """---
library_name: diffusers
tags: [motion, egocentric, smpl-h, diffusers, lora]
---

# {repo_id}

A LoRA adapter of motion-grpo's denoiser. Nothing was stated about its base, its training, its results or its licence.

```python
from motion_grpo import EgoMotionPipeline

pipe = EgoMotionPipeline.from_pretrained("BASE")
pipe.load_lora_weights("{repo_id}")
```
"""


class LoraMixin(LoraBaseMixin):
    """``load_lora_weights`` and ``save_lora_weights`` of a pipeline with a ``denoiser``.

    ``set_adapters``, ``unload_lora_weights`` and so on are diffusers'. All need the extra ``lora``.
    """

    _lora_loadable_modules = ["denoiser"]  # noqa: RUF012  (diffusers' name)

    def load_lora_weights(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        adapter_name: str | None = None,
        *,
        weight_name: str = LORA_WEIGHT_NAME_SAFE,
        subfolder: str = "",
        **options: Any,
    ) -> None:
        """Adds a LoRA adapter to the denoiser, switched on.

        Args:
            pretrained_model_name_or_path: a folder or a Hub id; a GRPO run with ``lora_r`` leaves its adapter beside
                the pipeline.
            adapter_name: to tell several apart; a new one when None.
            weight_name: file in it, safetensors with peft's configuration in its header.
            subfolder: folder of it.
            options: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no safetensors, damaged ones, or an adapter of another network.
            ImportError: the extra ``lora`` is not installed.
        """
        with extra("lora"):
            import peft  # noqa: F401
        name, file = os.fspath(pretrained_model_name_or_path), str(Path(subfolder) / weight_name)
        if not weight_name.endswith(".safetensors"):
            raise ValueError(f"weight_name is {weight_name!r}; adapters are loaded from safetensors only.")
        unknown = sorted(set(options) - set(LOAD_OPTIONS))
        if unknown:
            raise TypeError(f"load_lora_weights knows no option {unknown[0]!r}.")
        folder = Path(name) if Path(name).is_dir() else fetch(name, [file], **options)
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{name} holds no adapter: it has no {file}.")
        refuse_foreign_adapter(folder / file, self.denoiser)
        self.denoiser.load_lora_adapter(
            str((folder / file).parent), prefix=None, weight_name=weight_name, adapter_name=adapter_name
        )
        self.denoiser.eval()

    def save_lora_weights(
        self,
        save_directory: str | os.PathLike,
        adapter_name: str | None = None,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **push: Any,
    ) -> None:
        """Writes an adapter, without the denoiser's own weights, to ``pytorch_lora_weights.safetensors`` of a folder.

        Args:
            save_directory: the folder.
            adapter_name: may be left out where there is only one.
            push_to_hub: upload the folder too, with all that it holds.
            repo_id: where to; the folder's name when None.
            push: ``private``, ``token``, ``revision``, ``commit_message`` and ``create_pr`` of
                :func:`~motion_grpo.hub.push_folder`.

        Raises:
            ValueError: no such adapter, or as for :func:`~motion_grpo.hub.push_folder`.
            OSError: likewise.
        """
        there = self.get_list_adapters().get("denoiser", [])
        if not there or (adapter_name is None and len(there) > 1) or (adapter_name and adapter_name not in there):
            raise ValueError(f"adapter_name is {adapter_name!r}; the denoiser has {', '.join(there) or 'no adapter'}.")
        unknown = sorted(set(push) - set(PUSH_OPTIONS))
        if unknown:
            raise TypeError(f"save_lora_weights knows no option {unknown[0]!r}.")
        folder = Path(save_directory)
        if push_to_hub:
            checked = {key: push[key] for key in ("private", "token") if key in push}
            repo_id = check_repo(repo_id or folder.resolve().name, **checked)
        self.denoiser.save_lora_adapter(folder, adapter_name or there[0])
        if push_to_hub:
            push |= {"commit_message": push.get("commit_message") or "Upload LoRA adapter"}
            push_with_card(folder, repo_id, _CARD.format(repo_id=repo_id), **push)

    def fuse_lora(self, components: Sequence[str] = ("denoiser",), **options: Any) -> None:
        """Adds the adapters to the denoiser's weights, after which ``unload_lora_weights()`` keeps them."""
        super().fuse_lora(components=list(components), **options)

    def unfuse_lora(self, components: Sequence[str] = ("denoiser",), **options: Any) -> None:
        """Undoes :meth:`fuse_lora`."""
        super().unfuse_lora(components=list(components), **options)
