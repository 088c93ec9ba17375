"""A wheel of this checkout, and environments with it and what it requires: made without a network."""

import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "src/motion_grpo": "motion_grpo",
    "pipelines": "motion_grpo/cli",
    "trainers": "motion_grpo/cli/train",
    "configs": "motion_grpo/configs",
    "hub_cards": "motion_grpo/hub_cards",
}
"""Where the folders of the checkout lie once they are installed."""


def build_wheel(folder: Path) -> Path:
    """Of a copy: what earlier builds have left in the checkout gets into a wheel otherwise."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, folder / "copy" / name)
    _pip(sys.executable, "wheel", "--no-build-isolation", "--wheel-dir", folder, folder / "copy")
    return next(folder.glob("*.whl"))


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """A new environment with the wheel, and with links to what it requires, down to the last, as pip would bring it.

    Returns:
        The folder of its commands.
    """
    venv.create(folder, symlinks=True)
    _pip(folder / "bin" / "python", "install", wheel)
    [packages] = folder.glob("lib/python*/site-packages")
    [metadata] = packages.glob("motion_grpo-*.dist-info")
    for required in _requirements(Distribution.at(metadata), frozenset(extras)):
        _link(required, packages)
    return folder / "bin"


def _pip(python: str | Path, *words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, words[0], "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*command, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _requirements(package: Distribution, extras: frozenset[str]) -> list[Distribution]:
    """What a package needs, and what that needs."""
    asked, found = [(package, extras)], {}
    while asked:
        package, extras = asked.pop()
        for requirement in map(Requirement, package.requires or []):
            marker, key = requirement.marker, (requirement.name, frozenset(requirement.extras))
            if marker and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                continue
            if key not in found:
                # An extra may name other extras of its own package, which is not installed here.
                found[key] = package if requirement.name == package.name else distribution(requirement.name)
                asked.append((found[key], key[1]))
    return list(found.values())


def _link(package: Distribution, packages: Path) -> None:
    for name in {path.parts[0] for path in package.files or [] if path.parts[0] not in ("..", "__pycache__")}:
        link = packages / name
        if not link.exists():
            link.symlink_to(Path(str(package.locate_file(name))).resolve())
