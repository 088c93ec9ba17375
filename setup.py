"""Maps the folders of this repository into the one package that is installed; the rest is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

FOLDERS = {
    "motion_grpo": "src/motion_grpo",
    "motion_grpo.cli": "pipelines",
    "motion_grpo.cli.train": "trainers",
    "motion_grpo.configs": "configs",
    "motion_grpo.hub_cards": "hub_cards",
}


def packages() -> list[str]:
    """Every folder below, those of data too: found, not listed, so that none can be forgotten."""
    inner = {name: find_namespace_packages(folder, exclude=["*__pycache__"]) for name, folder in FOLDERS.items()}
    return [*FOLDERS, *(f"{name}.{folder}" for name, folders in inner.items() for folder in folders)]


setup(package_dir=FOLDERS, packages=packages())
