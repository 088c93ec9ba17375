"""The page about one's own reward and data does what it says, block by block."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from datasets import config as datasets_config
from motion_grpo.cli.train import grpo
from motion_grpo.cli.train.runs import Parser, RunArguments

from motion_grpo import EgoMotionPipeline
from motion_grpo.rewards import build_rewards
from motion_grpo.training import MotionGRPOConfig
from motion_grpo.training.settings import WITHOUT_EFFECT_GRPO
from tests.tiny import moving_motion

PAGE = (Path(__file__).parents[2] / "docs" / "your_own.md").read_text()
BLOCKS = re.findall(r"```(\w+)(?: file=(\S+))?\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with three motions in it, and the page's file of rewards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(datasets_config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    (tmp_path / "motions").mkdir()
    for seed in range(3):
        moving_motion(80, seed).save(tmp_path / "motions" / f"{seed}.npz")
    for _, name, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text)
    return tmp_path


def test_the_page_runs(folder, monkeypatch):
    names: dict[str, object] = {}
    for language, file, text in BLOCKS:
        if language == "python" and not file:
            exec(compile(text, "docs/your_own.md", "exec"), names)
    trained = EgoMotionPipeline.from_pretrained("runs/mine/pipeline")
    base = EgoMotionPipeline.from_pretrained("paper_base")
    pairs = zip(trained.denoiser.parameters(), base.denoiser.parameters(), strict=True)
    assert any(not a.equal(b) for a, b in pairs)
    log = names["trainer"].state.log_history
    assert {name for entry in log for name in entry} >= {"rewards/low_hands/mean", "rewards/hands/mean", "eval_mpjpe"}
    assert names["metrics"]["eval_mpjpe"] > 0


def test_the_command_line_is_understood(folder):
    (commands,) = [text for language, _, text in BLOCKS if language == "bash"]
    line = commands.replace("\\\n", " ").splitlines()[0]
    words = shlex.split(line.split("trainers/grpo.py ", 1)[1])
    parser = Parser(
        (grpo.DataArguments, grpo.ModelArguments, RunArguments, MotionGRPOConfig), WITHOUT_EFFECT_GRPO, "A script."
    )
    config = words.index("--config")
    assert (Path(__file__).parents[2] / words[config + 1]).is_file()
    parsed, unknown = parser.parse_known_args(words[:config] + words[config + 2 :])
    assert not unknown
    assert list(build_rewards(parsed.rewards)) == ["position", "low_hands", "hands"]
    assert parsed.reward_weights == [1.0, 0.5, 1.0]
