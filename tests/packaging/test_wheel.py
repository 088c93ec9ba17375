"""The wheel holds what the checkout holds, recovers motion with what it requires alone, and trains with the extra."""

import os
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from motion_grpo import Motion
from motion_grpo.metrics import mpjpe
from tests.packaging.environment import FOLDERS, ROOT, build_wheel, install
from tests.tiny import moving_motion, write_shard


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel):
    installed = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == installed
        licenses = {name.split(".dist-info/")[1] for name in archive.namelist() if "/licenses/" in name}
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert licenses == {
        "licenses/LICENSE", "licenses/NOTICE", "licenses/src/motion_grpo/checkpoints/LICENSE-CC-BY-NC-4.0"
    }  # fmt: skip
    assert "License-Expression: Apache-2.0 AND CC-BY-NC-4.0\n" in metadata


class Environment:
    """An environment with the wheel, and an empty folder to run commands in."""

    def __init__(self, wheel: Path, folder: Path, *extras: str) -> None:
        self.folder, commands = folder, install(wheel, folder / "environment", *extras)
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        self.variables = {"PATH": path, "HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(self, *words: str | Path) -> str:
        """What a command prints."""
        done = self._run(words)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def refusal(self, *words: str | Path) -> str:
        """The last line of a command that fails."""
        done = self._run(words)
        assert done.returncode == 1
        return done.stderr.strip().splitlines()[-1]

    def _run(self, words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        return subprocess.run(command, env=self.variables, cwd=self.folder, capture_output=True, text=True)


@pytest.mark.slow
def test_recovers_where_nothing_else_is_installed(wheel, tmp_path):
    place = Environment(wheel, tmp_path)
    names = ["trl", "transformers", "datasets", "pandas", "peft", "smplx", "h5py"]
    assert place.run("python", "-c", f"import importlib.util as u; print(*map(u.find_spec, {names}))").split() == (
        ["None"] * len(names)
    )
    head, motion = ROOT / "examples" / "brisk_walk.csv", tmp_path / "walk.npz"
    place.run("motion-grpo", "recover", head, "-o", motion, "--floor-height", "0", "--picture", "walk.png")
    recovered, truth = Motion.load(motion), Motion.load(head.with_suffix(".npz"))
    assert mpjpe(recovered.joints[:, :22], truth.joints[:, :22]) < 120
    assert (tmp_path / "walk.png").stat().st_size > 1000
    assert "mean of" in place.run("motion-grpo", "score", motion)

    told = "is not installed; it belongs to the extra '{0}': pip install \"motion-grpo[{0}]\"."
    refusal = place.refusal("motion-grpo", "evaluate", "--dataset", "x", "-o", "y")
    assert refusal.endswith(told.format("data"))
    assert place.refusal("motion-grpo", "data", "pack", "x", "-o", "y").endswith(told.format("data"))
    assert place.refusal("python", "-m", "motion_grpo.cli.train.pretrain").endswith(told.format("train"))


@pytest.mark.slow
def test_trains_with_a_preset_of_the_package(wheel, tmp_path):
    place = Environment(wheel, tmp_path, "train")
    (tmp_path / "pack").mkdir()
    write_shard(tmp_path / "pack", "cmu", "train", [moving_motion(40)])
    launch = ["python", "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    settings = {
        "config": "pretrain_small.yaml", "dataset_name": "pack", "output_dir": "run", "max_steps": 1, "window": 16,
        "per_device_train_batch_size": 2, "eval_strategy": "no",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    place.run(*launch, "-m", "motion_grpo.cli.train.pretrain", *options)
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()
    assert (tmp_path / "run" / "README.md").is_file()
