"""Every command and snippet of the README and of the pages runs, page by page, in the order of the page."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from datasets import config as datasets_config

from motion_grpo import EgoMotionPipeline
from motion_grpo.training import MotionGRPOConfig
from motion_grpo.viz.viewer import Viewer, _free_port
from tests.docs.pages import LANGUAGES, NOT_RUN, Block, blocks_of, names_of_snippets, write_world
from tests.hub.training_runs import CRITIC, DENOISER, SETTINGS
from tests.packaging.environment import ROOT
from tests.pipelines.test_recover import run
from tests.tiny import tiny_pipeline

PAGES = {
    path.name: path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
HERE = [
    "README.md", "CONTRIBUTING.md", "index.md", "install.md", "command_line.md", "notebook.md", "devices.md",
    "hands.md", "guidance.md", "checkpoints.md", "conventions.md", "from_amass.md", "data.md", "pretraining.md",
    "grpo.md", "post_training.md", "perceptual.md", "metrics.md",
]  # fmt: skip
"""Pages that this module runs; others have modules of their own."""
AWAITED = {"live.md", "post_training.md"}
"""Pages under way, which come with tests of their own."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LESS = {"recover": ["--steps", "1"], "evaluate": ["--limit", "1"], "evaluate-critic": ["--limit", "2"]}
"""What makes commands short, where the page does not say it itself."""


def commands_of(page: str) -> list[str]:
    return [line for block in blocks_of(PAGES[page]) if block.language == "bash" for line in block.commands]


def snippets_of(page: str) -> list[Block]:
    return [block for block in blocks_of(PAGES[page]) if block.language == "python"]


TRAININGS = list(
    dict.fromkeys(line for page in HERE for line in commands_of(page) if line.startswith("accelerate launch"))
)


def test_every_page_with_commands_or_snippets_is_run():
    languages = {name: {block.language for block in blocks_of(path)} for name, path in PAGES.items()}
    assert set().union(*languages.values()) <= LANGUAGES.keys() | NOT_RUN.keys()
    elsewhere = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
    for name, used in languages.items():
        if used & LANGUAGES.keys() and name not in AWAITED:
            assert name in HERE or f'"{name.removesuffix(".md")}' in elsewhere, f"no test runs what {name} shows"


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with all that pages name, and a process that opens no page, waits for nobody and asks no Hub."""
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets_config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(Viewer, "run", lambda viewer: viewer.stop())
    monkeypatch.setattr("motion_grpo.cli.app.serve", lambda examples, port: None)
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.setattr("motion_grpo.hub.check_repo", lambda repo_id, **options: repo_id)
    pushed = SimpleNamespace(repo_url="the repository")
    monkeypatch.setattr("motion_grpo.hub.push_folder", lambda folder, repo_id, **options: pushed)
    monkeypatch.setattr(EgoMotionPipeline, "push_to_hub", lambda pipe, repo_id, **options: pushed)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in HERE if commands_of(page)])
def test_commands_run(page, world, monkeypatch, capsys):
    for command in commands_of(page):
        _run_command(command, monkeypatch, capsys)


def _run_command(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    words = shlex.split(command)
    match words:
        case ["motion-grpo", *given]:
            _run_ours(given, monkeypatch, capsys)
        case ["accelerate", "launch", *_]:
            assert command in TRAININGS  # run together, below
        case ["pip", "install", *given]:
            _check_packages(given)
            if "&&" in given:
                _run_command(command.split("&&")[1].strip(), monkeypatch, capsys)
        case ["make", target]:
            assert subprocess.run(["make", "-n", target], capture_output=True, cwd=ROOT).returncode == 0
        case ["hf", "auth", "login"]:
            assert find_spec("huggingface_hub.cli.hf")  # it asks for a token, which a test has not
        case ["jupyter", "notebook", notebook]:
            assert (ROOT / notebook).is_file()  # tests/examples/test_quickstart.py runs it
        case [".venv/bin/pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").is_file()
        case _:
            pytest.fail(f"nobody knows how to run: {command}")


def _run_ours(given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    name = next((word for word in given if not word.startswith("-")), None)
    if name is None:
        given = [word.replace("--install-completion", "--show-completion") for word in given]
        # Where the tests run there may be no shell above them.
        monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    if name == "view" and "--export" not in given:
        given = [*given, "--no-open", "--port", str(_free_port())]
    given = [*given, *([] if set(LESS.get(name, [])) & set(given) else LESS.get(name, []))]
    code = run(monkeypatch, *given)
    captured = capsys.readouterr()
    assert code == 0, f"{given}: {captured.err}"
    written = [word for word in given[2:] if re.search(r"\.(glb|bvh|html|png|npz)$", word)]
    several = "--samples" in given
    assert several or all(Path(word).exists() for word in written), given


def _check_packages(given: list[str]) -> None:
    for word in given:
        if match := re.fullmatch(r"(?:\.|motion-grpo)\[([\w,]+)\]", word):
            assert set(match[1].split(",")) <= EXTRAS.keys()
        elif word == "&&":
            return
        else:
            assert word in ("-e", ".", "torch", "notebook"), word


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in HERE if snippets_of(page)])
def test_snippets_run(page, world, monkeypatch):
    if page == "grpo.md":
        less = {"max_steps": 1, "num_sampling_steps": 2, "num_generations": 64}
        short = partial(MotionGRPOConfig, report_to="none", use_cpu=True, **less)
        monkeypatch.setattr("motion_grpo.training.MotionGRPOConfig", short)
        monkeypatch.setattr(EgoMotionPipeline, "from_pretrained", lambda *name: tiny_pipeline(2, window=128))
        shutil.rmtree("runs/a")
    if page == "perceptual.md":
        shutil.copyfile("motion.npz", "walk.npz")
    names = names_of_snippets()
    for block in snippets_of(page):
        exec(compile(block.text, page, "exec"), names)


@pytest.mark.slow
def test_trainings_run(world):
    """All of them, each as it stands but for its preset, which is of two steps; in one process of their own."""
    (world / "configs").mkdir()
    networks = {"pretrain": {"model_config": DENOISER}, "perceptual": {"model_config": CRITIC}}
    for path in (ROOT / "configs").glob("*.yaml"):
        script = path.stem.split("_")[0]
        preset = SETTINGS[script] | networks.get(script, {}) | {"max_steps": 2, "overwrite": True}
        (world / "configs" / path.name).write_text(yaml.safe_dump(preset))
    local = [line for line in TRAININGS if "--push_to_hub" not in line]  # tests/hub runs those that push
    assert len(local) > 8
    (world / "commands.txt").write_text("\n".join(local))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).with_name("run_trainings.py")
    command = [sys.executable, "-W", "ignore", script, "commands.txt"]
    done = subprocess.run(command, env=environment, cwd=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stdout.count("ran: ") == len(local)
