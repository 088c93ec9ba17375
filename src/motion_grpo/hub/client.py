"""Pushing to the Hugging Face Hub and loading from it, checked on both sides.

A push uploads exactly what the folder holds: no pickles, no damaged weights, nothing that a link brings in.
Loaded is what the Hub says it has: its client compares sizes, and while it downloads; here digests are compared.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects, get_token
from safetensors import SafetensorError, safe_open

from motion_grpo.files import write_text

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""Endings of files that run code when they are opened."""
_TYPES = {"model": "a model", "dataset": "a data set", "space": "a Space"}
LOAD_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
"""Of huggingface_hub's, in ``from_pretrained``."""
PUSH_OPTIONS = ("private", "token", "revision", "commit_message", "create_pr")
"""Of :func:`push_folder`, in ``push_to_hub``."""
_CARD = """---
library_name: diffusers
tags: [motion, egocentric, smpl-h, diffusers]
---

# {repo_id}

A `{name}` of motion-grpo. Nothing was stated about its training, its data, its results or its license.

```python
from motion_grpo import {name}

loaded = {name}.from_pretrained("{repo_id}")
```
"""


def check_repo(repo_id: str, *, repo_type: str = "model", private: bool | None = None, token: str | None = None) -> str:
    """Checks that a repository may be pushed to, before there is anything to push; creates nothing.

    Args:
        repo_id: ``namespace/name``, or ``name`` for the namespace of the token's owner.
        repo_type: ``model`` or ``dataset``.
        private: whether it has to be.
        token: of the user; ``HF_TOKEN`` or that of ``hf auth login`` when None.

    Returns:
        The full id.

    Raises:
        ValueError: not an id, an id that is taken by another type of repository, or a public one for what is private.
        OSError: no token, a wrong one, one that may not write there, or no connection.
    """
    api = HfApi(token=token)
    try:
        user = api.whoami()
        owners = [user["name"], *(organisation["name"] for organisation in user["orgs"])]
        full_id = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
        present = [kind for kind in _TYPES if api.repo_exists(full_id, repo_type=kind)]
        if full_id.split("/")[0] not in owners:
            raise PermissionError(f"{full_id} is not yours to push to: the token belongs to {user['name']}.")
        if present and repo_type not in present:
            raise ValueError(
                f"{full_id} exists and is {_TYPES[present[0]]}, not {_TYPES[repo_type]}; choose another name."
            )
        if private and repo_type in present and not api.repo_info(full_id, repo_type=repo_type).private:
            raise ValueError(f"{full_id} exists and is public; make it private first, or choose another name.")
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name for a repository: {error}") from error
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        raise OSError(f"Cannot push to {repo_id}: {_reason(error, repo_id, repo_type)}.") from error
    return full_id


def make_repo(
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """The repository, and the branch ``revision`` of it, if they do not exist; otherwise as :func:`check_repo`."""
    repo_id = check_repo(repo_id, repo_type=repo_type, private=private, token=token)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    except HfHubHTTPError as error:
        raise OSError(f"Cannot push to {repo_id}: {_reason(error, repo_id, repo_type)}.") from error
    return repo_id


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    path_in_repo: str = "",
    allow_patterns: Sequence[str] | None = None,
    delete_patterns: Sequence[str] | None = None,
    checkpoint: str | None = None,
) -> CommitInfo:
    """Uploads a folder as one commit; makes the repository, and the branch, if they do not exist.

    An upload that broke off may simply be repeated: large files that arrived are not sent again.

    Args:
        folder: what to upload.
        revision: branch; ``main`` when None.
        path_in_repo: folder there; the top when empty.
        allow_patterns: only these of the files.
        delete_patterns: files there that match are deleted, unless the folder has them too.

    Other arguments, and what is raised, as for :func:`check_repo` and :func:`check_folder`.
    """
    check_folder(folder, allow_patterns, checkpoint)
    repo_id = make_repo(repo_id, repo_type=repo_type, private=private, token=token, revision=revision)
    try:
        return HfApi(token=token).upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            path_in_repo=path_in_repo or None,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            allow_patterns=None if allow_patterns is None else list(allow_patterns),
            delete_patterns=None if delete_patterns is None else list(delete_patterns),
        )
    except HfHubHTTPError as error:
        raise OSError(f"Cannot push to {repo_id}: {_reason(error, repo_id, repo_type)}.") from error


def push_with_card(folder: Path, repo_id: str, card: str, **push: Any) -> CommitInfo:
    """:func:`push_folder`, with a card where neither the folder nor the repository has one at its top."""
    api = HfApi(token=push.get("token"))
    bare = not push.get("path_in_repo") and not (folder / "README.md").exists()
    if bare and not (api.repo_exists(repo_id) and api.file_exists(repo_id, "README.md")):
        write_text(folder / "README.md", card)
    return push_folder(folder, repo_id, **push)


def check_folder(
    folder: str | os.PathLike, allow_patterns: Sequence[str] | None = None, checkpoint: str | None = None
) -> list[str]:
    """The files that :func:`push_folder` would upload, relative to the folder.

    Args:
        folder: what would be uploaded.
        allow_patterns: only these of the files.
        checkpoint: name of a folder in it that a training resumes from: the optimizer's state in it is a pickle, which
            transformers reads as plain tensors (``weights_only=True``) and no model is loaded from.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing to upload, a pickle, damaged safetensors, or a link that leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; there is nothing to push.")
    everything = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    names = filter_repo_objects(everything, allow_patterns=allow_patterns, ignore_patterns=DEFAULT_IGNORE_PATTERNS)
    files = []
    for name in names:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} leads out of the folder, to {path.resolve()}; push a copy of what is meant.")
        if not path.is_file():
            continue
        if path.suffix in PICKLES and not (checkpoint and name.startswith(f"{checkpoint}/")):
            raise ValueError(f"{path} is a pickle, which is never pushed; save the weights as safetensors.")
        if path.suffix == ".safetensors":
            refuse_damaged(path)
        files.append(name)
    if not files:
        raise ValueError(f"{folder} holds no file to push.")
    return files


def refuse_damaged(path: Path) -> None:
    """Raises ValueError for a safetensors file that is not whole."""
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy or download it again.") from error


def fetch(repo_id: str, patterns: Sequence[str], *, repo_type: str = "model", **options: Any) -> Path:
    """Files of a repository on the Hub, in the cache; offline (``HF_HUB_OFFLINE=1``) what is there already.

    A file is compared with the Hub's digest once, after it came or changed: a mark in the cache remembers that.

    Args:
        repo_id: ``namespace/name``.
        patterns: names of the files, with wildcards.
        repo_type: ``model`` or ``dataset``.
        options: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``,
            ``ignore_patterns``.

    Returns:
        The folder of that commit, named by its digest.

    Raises:
        FileNotFoundError: it cannot be had; the message says why.
        OSError: it is not what the Hub says; the damaged file was taken out of the cache.
    """
    try:
        folder = Path(snapshot_download(repo_id, repo_type=repo_type, allow_patterns=list(patterns), **options))
    except (OSError, HFValidationError) as error:
        reason = _reason(error, repo_id, repo_type, options.get("token"))
        raise FileNotFoundError(f"{repo_id} cannot be had from the Hub: {reason}.") from error
    for path in folder.rglob("*"):
        if path.is_symlink() and not _seen_whole(path, folder.parents[1]):
            path.resolve().unlink()
            path.unlink()
            name = path.relative_to(folder)
            raise OSError(f"{name} of {repo_id} was damaged on its way: its digest is not the Hub's. Load it again.")
    return folder


def fetch_component(name: str | os.PathLike, kwargs: dict[str, Any]) -> Path:
    """The folder of a model's ``from_pretrained``: a local one as it is, else :func:`fetch`; takes its options out."""
    options = {key: kwargs.pop(key) for key in LOAD_OPTIONS if key in kwargs}
    if Path(name).is_dir():
        return Path(name)
    start = f"{kwargs['subfolder']}/" if kwargs.get("subfolder") else ""
    # A folder beside the weights is another matter: a checkpoint of the training, say.
    options["ignore_patterns"] = [f"{start}*/*"]
    folder = fetch(str(name), [f"{start}*.json", f"{start}*.safetensors"], **options)
    _refuse_pickles(str(name), start, folder, options.get("cache_dir"))
    return folder


def fetch_pipeline(name: str, kwargs: dict[str, Any]) -> Path:
    """The folder of a pipeline on the Hub: all components at one commit, but for those that are given in ``kwargs``."""
    options = {key: kwargs.pop(key) for key in LOAD_OPTIONS if key in kwargs}
    folder = fetch(name, ["model_index.json", "pipeline.py"], **options)
    # What else a repository holds (checkpoints of the training, evaluations) stays there.
    components = [path for path in _component_names(folder) if path not in kwargs]
    patterns = [f"{component}/*.{ending}" for component in components for ending in ("json", "safetensors")]
    if patterns:
        folder = fetch(name, patterns, **options | {"revision": folder.name})
    for component in components:
        _refuse_pickles(name, f"{component}/", folder, options.get("cache_dir"))
    return folder


def _component_names(folder: Path) -> list[str]:
    if not (folder / "model_index.json").is_file():
        return []
    index = json.loads((folder / "model_index.json").read_text())
    return [name for name, value in index.items() if isinstance(value, list)]


def _refuse_pickles(repo_id: str, start: str, folder: Path, cache_dir: str | os.PathLike | None) -> None:
    names = [name for name in _listing(repo_id, folder.name, cache_dir) if name.startswith(start)]
    pickles = sorted(name for name in names if name.endswith(PICKLES) and "/" not in name.removeprefix(start))
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"{pickles[0]} of {repo_id} is a pickle, which is never loaded; push the weights as safetensors."
        )


def _listing(repo_id: str, commit: str, cache_dir: str | os.PathLike | None) -> list[str]:
    """Names of all files of a commit; none for a cache that an old client has filled."""
    try:
        return [file.path for file in get_cached_repo_tree(repo_id, revision=commit, cache_dir=cache_dir)]
    except CachedRepoTreeNotFoundError:
        return []


def _seen_whole(link: Path, cache: Path) -> bool:
    """:func:`_is_whole`, looked up where it was found before and the file has not been written since."""
    mark = cache / ".whole" / link.readlink().name
    if mark.exists() and mark.stat().st_mtime_ns >= link.stat().st_mtime_ns:
        return True
    if whole := _is_whole(link):
        with contextlib.suppress(OSError):  # a cache that may only be read is compared every time
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
    return whole


def _is_whole(link: Path) -> bool:
    """Whether a file of the cache is what it is named by: SHA-256 of a large file, git's digest of a small one.

    The cache links to files by those names (where the system has no links, there is nothing to compare).
    """
    name = link.readlink().name
    if len(name) == 64:
        with link.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == name
    content = link.read_bytes()
    return len(name) != 40 or hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == name


def _reason(error: BaseException | None, repo_id: str, repo_type: str, token: str | None = None) -> str:
    """What is behind an error of huggingface_hub, in words, with what to do about it."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for error in chain:
        if isinstance(error, LocalTokenNotFoundError):
            return "there is no token; set HF_TOKEN or run `hf auth login`"
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set" + ("" if len(chain) == 1 else ", and the cache does not hold it")
        if isinstance(error, RevisionNotFoundError):
            return "it has no such revision"
        if isinstance(error, RepositoryNotFoundError):
            return _why_not_found(repo_id, repo_type, token)
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
            return "the token is not valid; set another HF_TOKEN or run `hf auth login`"
    return str(chain[0]).strip().rstrip(".")


def _why_not_found(repo_id: str, repo_type: str, token: str | None) -> str:
    others = [kind for kind in _TYPES if kind != repo_type and HfApi(token=token).repo_exists(repo_id, repo_type=kind)]
    if others:
        return f"it is {_TYPES[others[0]]}, not {_TYPES[repo_type]}"
    if token or (token is None and get_token()):
        return "there is no such repository, or it is private and this token may not read it"
    return "there is no such repository, or it is private and there is no token (HF_TOKEN, `hf auth login`)"
