"""What the project says of itself: requirements, versions, licenses, citation, headers of scripts."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import motion_grpo
from motion_grpo.training.grpo.trl_adapter import RELIED_ON, TESTED
from tests.packaging.environment import FOLDERS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SCRIPTS = sorted(path for path in (ROOT / "trainers").glob("*.py") if '__name__ == "__main__"' in path.read_text())


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def imported() -> set[str]:
    """The packages that modules of this one import, wherever in them."""
    modules = set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.partition(".")[0])
    installed = packages_distributions()
    found = modules - sys.stdlib_module_names - {"motion_grpo"}
    return {canonicalize_name(installed.get(module, [module])[0]) for module in found}


def test_what_is_imported_is_required_and_the_other_way_round():
    optional = names(
        [
            requirement
            for name in ("data", "train", "lora", "aria", "hdf5", "export", "view", "space", "live", "onnx")
            for requirement in EXTRAS[name]
        ]
    )
    assert imported() == names(PROJECT["dependencies"]) | optional - {"motion-grpo"}


def test_all_has_every_extra_that_users_need():
    [everything] = map(Requirement, EXTRAS["all"])
    assert everything.extras == EXTRAS.keys() - {"all", "examples", "test", "docs", "dev"}
    [table] = re.findall(
        r"^\| extra \| for \|\n((?:\|.*\n)+)", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE
    )
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == everything.extras | {"all"}


def test_private_names_belong_to_packages_with_an_upper_bound():
    train = {requirement.name: requirement for requirement in map(Requirement, EXTRAS["train"])}
    for name in {place.partition(":")[0].partition(".")[0] for place in RELIED_ON} - {"accelerate"}:
        assert any(specifier.operator == "<" for specifier in train[name].specifier), name
        assert train[name].specifier.contains(TESTED[name])


def test_the_license_of_the_weights_is_beside_them():
    assert PROJECT["license"] == "Apache-2.0 AND CC-BY-NC-4.0"
    path = Path(motion_grpo.__file__).parent / "checkpoints" / "LICENSE-CC-BY-NC-4.0"
    text = path.read_text()
    assert text.startswith("Attribution-NonCommercial 4.0 International\n")
    assert [int(number) for number in re.findall(r"^Section (\d) -- ", text, re.MULTILINE)] == list(range(1, 9))


def test_all_speak_of_one_version():
    assert PROJECT["dynamic"] == ["version"]
    [newest, *_] = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert motion_grpo.__version__ == newest == citation["version"]


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_say_what_they_need(path):
    header = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"  # as the format defines it
    [block] = re.finditer(header, path.read_text())
    content = tomllib.loads("".join(line.removeprefix("#")[1:] for line in block["content"].splitlines(keepends=True)))
    assert content["requires-python"] == PROJECT["requires-python"]
    [requirement] = map(Requirement, content["dependencies"])
    assert (requirement.name, requirement.extras) == (PROJECT["name"], {"train"})
