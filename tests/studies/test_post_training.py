"""The study of post-training: its rows exist, its tables say what its data say, and a row runs from end to end."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.tiny import moving_motion, write_shard
from tests.training.grpo.setup import pipeline

sys.path.insert(0, str(Path(__file__).parents[2] / "studies"))  # a program's own folder, as when it is run
study = import_module("post_training")
sys.path.pop(0)


def test_the_page_agrees_with_the_data():
    lines = study.read_records(study.KEPT)
    text = study.PAGE.read_text().split(study.START)[1].split(study.END)[0]
    assert text.strip() == study.tables(lines)


@pytest.mark.parametrize("name", study.ROWS)
def test_presets_of_rows_exist(name):
    row = study.ROWS[name]
    assert (study.ROOT / "configs" / row.config).is_file()
    assert (study.ROOT / "trainers" / f"{row.script}.py").is_file()
    assert row.script in study.CONFIGS


def line(row: str, seed: int, change: float) -> dict:
    metrics = (*study.METRICS, "spread")
    found = {m: {"base": 80.0, "row": 40.0, "change": change, "lo": change - 1, "hi": change + 1} for m in metrics}
    return {"row": row, "base": "b", "seed": seed, "budget": "10_minutes_cpu", "updates": 100 + seed,
            "changes": {"val": found}}  # fmt: skip


def test_a_table_by_hand():
    text = study.tables([line("dpo", 0, -2.0), line("reward_gradient", 0, -30.0), line("reward_gradient", 1, -40.0)])
    rows = text.split("\n")
    assert rows[0].startswith("| b, 10 minutes cpu, val | runs x updates | MPJPE (mm) | PA (mm)")
    assert rows[2].startswith("| the base | | 80 | 80 |")
    assert rows[3].startswith("| DPO, best against worst | 1 x 100 | -2.0% [-3.0, -1.0] |")
    assert rows[4].startswith("| exact gradient, the last step | 2 x 100 | -35.0% [-40.0, -30.0] |")
    assert study.tables([]) == "No row has been run yet."


def test_an_unknown_row_is_named(tmp_path):
    done = CliRunner().invoke(study.app, ["run", "--dataset", str(tmp_path), "--rows", "ppo"])
    assert done.exit_code == 2
    assert "there is no row ppo" in done.output.replace("\n", " ")


@pytest.mark.slow
def test_a_row_is_trained_evaluated_and_kept(tmp_path, monkeypatch):
    pack = tmp_path / "pack"
    pack.mkdir()
    write_shard(pack, "cmu", "train", [moving_motion(40, seed) for seed in range(3)])
    write_shard(pack, "cmu", "val", [moving_motion(20, seed) for seed in (7, 8)])
    pipeline().save_pretrained(tmp_path / "tiny_base")
    preset = yaml.safe_load((study.ROOT / "configs" / "reward_gradient.yaml").read_text())
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(preset | {"window": 16, "per_device_train_batch_size": 4}))
    monkeypatch.setitem(study.ROWS, "tiny", study.Row("tiny", "reward_gradient", str(tmp_path / "tiny.yaml")))
    out = tmp_path / "rows.jsonl"
    arguments = ["run", "--dataset", str(pack), "--rows", "tiny", "--base", str(tmp_path / "tiny_base"), "--updates"]
    arguments += ["2", "--work", str(tmp_path / "work"), "--out", str(out)]
    for _ in range(2):  # the second time there is nothing left to do
        done = CliRunner().invoke(study.app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    (kept,) = map(json.loads, out.read_text().splitlines())
    assert (kept["row"], kept["base"], kept["updates"], kept["skipped_updates"]) == ("tiny", "tiny_base", 2, 0)
    assert kept["settings"]["learning_rate"] == 2e-4
    assert kept["recordings"][0]["dataset_sha256"]
    assert kept["changes"]["val"]["mpjpe"]["base"] > 0
    assert str(tmp_path) not in json.dumps({k: v for k, v in kept.items() if k != "config"})
