"""Runs the whole library under jaxtyping's shape checker, offline and on few threads."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Must run before the first import of motion_grpo: every annotated shape is checked at run time in the tests.
install_import_hook("motion_grpo", "beartype.beartype")

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look at a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shared_path(name: str) -> Path:
    """A path beside the checkout that holds real data too large or not licensed to ship; skips where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine (real data that is not part of the repository)")
    return path
