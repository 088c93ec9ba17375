"""Where a result comes from: the code that made it, and digests of the data and the weights it was made of."""

import hashlib
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from motion_grpo.data.mocap_pack import is_mocap_pack
from motion_grpo.hub import fetch

_PACKAGE = Path(__file__).resolve().parent


def code_version() -> dict[str, str]:
    """``version`` of the package and, where it runs from a checkout, its ``commit`` (``-dirty``: it has been edited).

    A package that is installed in a folder of some other repository has no commit of its own.
    """
    found = {"version": version("motion-grpo")}
    root = _PACKAGE.parents[1]
    if (root / ".git").exists() and root / "src" / "motion_grpo" == _PACKAGE:
        try:
            commit = _git(root, "rev-parse", "HEAD")
            found["commit"] = f"{commit}-dirty" if _git(root, "status", "--porcelain", "-uno") else commit
        except (OSError, subprocess.CalledProcessError):
            pass  # no git on this machine, or one that refuses the folder: the version has to do
    return found


def dataset_facts(dataset: str | Path) -> dict[str, str]:
    """What tells a data set from others, without where it lies: a digest of its files, or its commit on the Hub.

    Args:
        dataset: as for :func:`~motion_grpo.data.load_clips`.

    Raises:
        FileNotFoundError: no such folder, and no such data set on the Hub.
    """
    folder = Path(dataset)
    if folder.is_dir():
        files = folder.glob("*.parquet") if is_mocap_pack(folder) else folder.rglob("*.parquet")
        return {"dataset": folder.resolve().name, "dataset_sha256": sha256_of(files)}
    commit = fetch(str(dataset), ["README.md"], repo_type="dataset").name
    return {"dataset": str(dataset), "dataset_revision": commit}


def sha256_of(files: Iterable[Path]) -> str:
    """Of the contents of one file, or of several in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def weights_digest(folder: Path) -> str:
    """sha256 of the contents of the safetensors of a folder, in the order of their names.

    Raises:
        FileNotFoundError: there are none.
    """
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no safetensors.")
    return sha256_of(files)


def state_dict_digest(model: nn.Module) -> str:
    """sha256 of names and values as they are computed with, wherever the model was loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    process = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return process.stdout.strip()
