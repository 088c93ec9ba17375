"""Which file ``--config`` is."""

from pathlib import Path

import pytest
from motion_grpo.cli.train.grpo import ModelArguments
from motion_grpo.cli.train.runs import Parser, config_path

PRESETS = Path(__file__).parents[2] / "configs"


def test_a_preset_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path("grpo_small.yaml").samefile(PRESETS / "grpo_small.yaml")


def test_a_file_comes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("grpo_small.yaml").write_text("model_name_or_path: mine\n")
    [parsed] = Parser((ModelArguments,), {}, "A script.").parse_args_and_config(["--config", "grpo_small.yaml"])
    assert parsed.model_name_or_path == "mine"


def test_a_preset_that_is_not_there_is_told_with_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        config_path("configs/grpo_small.yaml")
    names = ", ".join(sorted(path.name for path in PRESETS.glob("*.yaml")))
    assert str(raised.value) == (
        f"--config is 'configs/grpo_small.yaml': there is no such file, and the presets are {names}."
    )
