"""``from_pretrained`` and ``push_to_hub`` of models, scheduler and pipeline."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from motion_grpo.files import write_text
from motion_grpo.hub.client import _CARD, PUSH_OPTIONS, check_repo, push_with_card


class HubMixin:
    """``push_to_hub`` and ``save_pretrained(push_to_hub=True)`` of a class of diffusers, by way of :func:`push_folder`.

    diffusers' own put the Hub's card, or an empty one, in the place of the folder's, and upload whatever lies there.
    """

    config: Any
    """diffusers' ``FrozenDict``, whose entries are attributes too."""

    def push_to_hub(self, repo_id: str, *, subfolder: str = "", **options: Any) -> CommitInfo:
        """Uploads it to the Hub.

        Args:
            repo_id: ``namespace/name``, or ``name`` in your own namespace; made if it does not exist.
            subfolder: folder there; the top when empty.
            options: ``private``, ``token``, ``revision`` (a branch), ``commit_message`` and ``create_pr`` of
                :func:`push_folder`; what is left goes to ``save_pretrained``.

        Raises:
            ValueError: a bad name, a name that another type of repository has, or a public one for what is private.
            OSError: no token, a wrong one, one that may not write there, or no connection.
        """
        push = {key: options.pop(key) for key in PUSH_OPTIONS if key in options}
        with tempfile.TemporaryDirectory() as folder:
            return self._save_and_push(Path(folder), repo_id, options, push | {"path_in_repo": subfolder})

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Writes it to a folder, weights as safetensors.

        Args:
            save_directory: the folder.
            safe_serialization: True; pickles are never written.
            variant: part of the weights' names, as ``fp16``.
            max_shard_size: of a file of weights.
            push_to_hub: upload the folder too, with all that it holds, as ``repo_id`` (its name when not given) and
                with the options of :meth:`push_to_hub`.
            options: further ones of diffusers.

        Raises:
            ValueError: ``safe_serialization=False``, or as :meth:`push_to_hub`.
        """
        given = {"variant": variant, "max_shard_size": max_shard_size}
        options |= {key: value for key, value in given.items() if value is not None}
        options["safe_serialization"] = safe_serialization
        folder = Path(save_directory)
        if push_to_hub:
            repo_id = options.pop("repo_id", folder.resolve().name)
            push = {key: options.pop(key) for key in PUSH_OPTIONS if key in options}
            self._save_and_push(folder, repo_id, options, push)
        else:
            self._save(folder, options)

    def to_json_string(self) -> str:
        """The configuration as it is saved: without the place that it was loaded from, a path of this machine."""
        settings = json.loads(super().to_json_string())
        settings.pop("_name_or_path", None)
        return json.dumps(settings, indent=2, sort_keys=True) + "\n"

    def _save(self, folder: Path, options: dict[str, Any]) -> None:
        _refuse_pickling(options)
        super().save_pretrained(str(folder), **options)
        for name, text in self._further_files().items():
            write_text(folder / name, text)

    def _further_files(self) -> dict[str, str]:
        """Files that are saved beside diffusers' own, name to text."""
        return {}

    def _save_and_push(self, folder: Path, repo_id: str, options: dict[str, Any], push: dict[str, Any]) -> CommitInfo:
        _refuse_pickling(options)
        checked = {key: push[key] for key in ("private", "token") if key in push}
        repo_id = check_repo(repo_id, **checked)
        self._save(folder, options)
        name = type(self).__name__
        push |= {"commit_message": push.get("commit_message") or f"Upload {name}"}
        return push_with_card(folder, repo_id, _CARD.format(repo_id=repo_id, name=name), **push)


def _refuse_pickling(options: dict[str, Any]) -> None:
    if not options.get("safe_serialization", True):
        raise ValueError("safe_serialization=False would write a pickle; weights are saved as safetensors only.")
