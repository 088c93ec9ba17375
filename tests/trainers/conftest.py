"""What the tests of the training scripts share."""

from pathlib import Path

import pytest

from tests.tiny import moving_motion, write_shard


@pytest.fixture
def pack(tmp_path) -> Path:
    """A pack on disk: three clips to train on, two to validate on."""
    folder = tmp_path / "pack"
    folder.mkdir()
    write_shard(folder, "cmu", "train", [moving_motion(40, seed) for seed in range(3)])
    write_shard(folder, "cmu", "val", [moving_motion(20, seed) for seed in (7, 8)])
    return folder
