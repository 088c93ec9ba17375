"""What studies/guidance.py measures is what its names say, and docs/guidance.md shows it."""

from dataclasses import replace

import torch
from typer.testing import CliRunner

from motion_grpo.body import FOOT_JOINTS
from motion_grpo.motion.contacts import TOE_HEIGHT
from studies import guidance
from tests.tiny import moving_clip, tiny_pipeline


def test_the_page_shows_what_was_measured():
    page = guidance.PAGE.read_text()
    for name, text in guidance.tables(guidance.read_records(guidance.KEPT)).items():
        start, end = guidance.MARKS[name]
        assert f"{start}\n{text}\n{end}" in page, "run `python -m studies.guidance write`"


def test_ground_is_where_the_feet_rested():
    still = moving_clip(20).motion
    still = replace(still, **{
        name: getattr(still, name)[:1].expand_as(getattr(still, name)).clone()
        for name in ("root_rotmats", "root_positions", "body_rotmats")
    })  # fmt: skip
    assert not guidance.climbs(still)
    # Up a step: a second half that stands as still, higher and elsewhere.
    place = still.root_positions + torch.tensor([0.0, 0.0, -float(still.joints[0, [10, 11], 2].min()) + TOE_HEIGHT])
    place[10:] += torch.tensor([1.0, 0.0, 0.3])
    stepped = replace(still, root_positions=place)
    assert guidance.climbs(stepped)
    ground = guidance.ground_of(stepped)
    toes = stepped.joints[:, list(FOOT_JOINTS[2:])]
    # One toe of the swinging body may be higher than the other; none is below the ground that it made.
    lowest = (toes[..., 2] - ground.at(toes[..., :2])[0]).amin(1)
    assert lowest[[0, 19]].abs().max() < 0.05
    assert guidance.below(stepped, ground) < 0.01
    sunk = replace(stepped, root_positions=place - torch.tensor([0.0, 0.0, 0.2]))
    assert 0.15 < guidance.below(sunk, ground) < 0.25


def test_a_line_a_clip_and_way_and_a_run_that_goes_on(tmp_path, monkeypatch):
    pipeline = tiny_pipeline(include_wrists_cond=True)
    monkeypatch.setattr(guidance.EgoMotionPipeline, "from_pretrained", lambda name: pipeline)
    monkeypatch.setattr(guidance, "read_clips", lambda dataset, split: [moving_clip(16, seed) for seed in range(3)])
    monkeypatch.setattr(guidance, "dataset_facts", lambda dataset: {})
    monkeypatch.setattr(guidance, "digest_of", lambda pipeline: "")
    out = tmp_path / "rows.jsonl"

    def run(limit: int) -> list[dict]:
        command = ["run", str(tmp_path), "--split", "val", "--out", str(out), "--limit", str(limit)]
        result = CliRunner().invoke(guidance.app, command)
        assert result.exit_code == 0, result.exception
        return guidance.read_records(out)

    first = run(1)
    assert [line["row"] for line in first] == [*guidance.FEET, *guidance.WRISTS]
    of = {line["row"]: line for line in first}
    assert of["wrists, `aria_wrist_only`"]["wrist_error"] < 0.3 * of["wrists told to the network"]["wrist_error"]
    both = run(2)
    assert both[: len(first)] == first
    assert len({line["clip"] for line in both}) == 2
    text = guidance.tables(both)
    assert "**val, 2 clips (1 s)**" in text["feet"]
    mean = sum(line["mpjpe"] for line in both if line["row"] == "plain") / 2
    assert f"| plain | {mean:.1f} |" in text["feet"]
