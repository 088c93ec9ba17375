"""The conditions of studies/conditions.py are what their names say."""

import json

import pytest
import torch
from typer.testing import CliRunner

from motion_grpo.body import WRIST_JOINTS
from motion_grpo.evaluation import head_trajectory
from studies import conditions
from tests.tiny import moving_clip, tiny_pipeline


def test_askew_device_is_off_by_what_the_table_says():
    clip = moving_clip(40)
    true, (askew, _) = head_trajectory(clip), conditions.worn_askew(clip)
    turn = true.R_world_cpf.mT @ askew.R_world_cpf
    angles = torch.rad2deg(torch.arccos(((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)))
    torch.testing.assert_close(angles, torch.full((40,), 5.0), atol=0.05, rtol=0)
    torch.testing.assert_close((turn - turn[:1]).abs().max(), torch.tensor(0.0), atol=1e-5, rtol=0)
    offset = (askew.p_world_cpf - true.p_world_cpf).norm(dim=-1)
    torch.testing.assert_close(offset, torch.full((40,), 0.02), atol=1e-5, rtol=0)
    assert abs(askew.floor_height - true.floor_height) == pytest.approx(0.04)


def test_wrists_are_the_recorded_ones_and_bursts_show_half():
    clip = moving_clip(3000)
    hands = conditions.wrists_in_bursts(clip)[1]["hands"]
    assert 0.35 < float(hands.visible.float().mean()) < 0.65
    # About one switch a second and wrist.
    switches = int((hands.visible[1:] != hands.visible[:-1]).sum())
    assert 130 < switches < 270
    everything = conditions.both_wrists(clip)[1]["hands"]
    assert everything.visible.all()
    recorded = clip.motion.joints[:, list(WRIST_JOINTS)]
    torch.testing.assert_close(everything.p_world_wrist, recorded, atol=1e-5, rtol=0)


def test_a_line_a_condition_and_a_table_of_them(tmp_path, monkeypatch):
    pipeline = tiny_pipeline(include_wrists_cond=True)
    monkeypatch.setattr(conditions.EgoMotionPipeline, "from_pretrained", lambda name: pipeline)
    monkeypatch.setattr(conditions, "read_clips", lambda dataset, split: [moving_clip(20)])
    monkeypatch.setattr(conditions, "dataset_facts", lambda dataset: {})
    monkeypatch.setattr(conditions, "digest_of", lambda pipeline: "")
    out = tmp_path / "rows.jsonl"
    result = CliRunner().invoke(conditions.app, ["run", str(tmp_path), "--split", "val", "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["condition"] for line in lines] == list(conditions.CONDITIONS)
    of = {line["condition"]: line for line in lines}
    assert of["the wearer's `betas` given"]["leg_length_off"] == 0
    assert of["head only"]["leg_length_off"] > 0
    table = conditions.table(lines)
    assert table.count("\n") == len(lines) + 2
    assert f"{of['head only']['mpjpe']:.1f} (" in table


def test_the_page_shows_what_was_measured():
    lines = map(json.loads, conditions.KEPT.read_text().splitlines())
    shown = f"{conditions.START}\n{conditions.table(lines)}\n{conditions.END}"
    assert shown in conditions.PAGE.read_text(), "run `python studies/conditions.py write`"
