"""The command: what it records, that it resumes, and that processes and files of motions change nothing."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import torch
import typer
from motion_grpo.cli import evaluate as module
from typer.testing import CliRunner

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler, Motion
from motion_grpo.data import Clip, MocapPackImporter, clip_to_row, read_mocap_pack, run_import
from motion_grpo.data.schema import rows_to_table
from motion_grpo.evaluation import runs
from motion_grpo.metrics import METRIC_UNITS
from motion_grpo.motion import FPS
from tests.tiny import moving_motion, tiny_denoiser, write_shard

SPLITS = {"id_test": ("ab", (30, 41)), "test": ("cd", (35, 26, 33)), "train": ("ef", (60, 50, 40))}
BASELINES = "mean_pose,nearest,upright,smoothed,ground_truth"
SYSTEMS = ["model", *BASELINES.split(",")]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    for number, (split, (source, lengths)) in enumerate(SPLITS.items()):
        write_shard(folder, source, split, [moving_motion(n, 10 * number + i) for i, n in enumerate(lengths)])
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    scheduler = EgoMotionSDEScheduler(timestep_spacing="trailing", eta=0.5)
    EgoMotionPipeline(tiny_denoiser(), scheduler, num_inference_steps=2, window=16, overlap=4).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(pack: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with every baseline and the motions saved beside the results."""
    folder = tmp_path_factory.mktemp("finished")
    run(pack, folder / "results", checkpoint, baselines=BASELINES, save_motions=folder / "motions")
    return folder


def run(pack: Path, output: Path, checkpoint: str = "base", **options: Any) -> dict:
    module.evaluate(str(pack), output, checkpoint, seeds=2, **options)
    return results_in(output)


def results_in(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def test_results_say_what_they_are(finished: Path, pack: Path, checkpoint: str) -> None:
    results = results_in(finished / "results")
    settings = results["settings"]
    (weights,) = Path(checkpoint, "denoiser").glob("*.safetensors")
    assert settings["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (settings["num_inference_steps"], settings["eta"], settings["guidance"]) == (2, 0.5, "none")
    assert (settings["fps"], settings["seeds"], settings["dataset"]) == (30.0, [0, 1], pack.name)
    assert settings["joints"].startswith("22")
    assert "world frame" in settings["alignment"]
    assert set(settings["versions"]) == {"motion_grpo", "torch", "diffusers"}
    assert {name: (s["clips"], s["frames"]) for name, s in results["splits"].items()} == {
        "id_test": (2, 71),
        "test": (3, 94),
    }
    for split in results["splits"].values():
        assert list(split["systems"]) == SYSTEMS
        assert [s["samples_per_clip"] for s in split["systems"].values()] == [2, 1, 1, 1, 2, 1]
        for system in split["systems"].values():
            assert set(system["metrics"]) == set(METRIC_UNITS) - {"diversity"}
            for metric, estimate in system["metrics"].items():
                assert estimate["unit"] == METRIC_UNITS[metric]
                assert estimate["lo"] <= estimate["mean"] <= estimate["hi"]
        assert split["systems"]["ground_truth"]["metrics"]["mpjpe"]["mean"] == 0
        assert split["systems"]["model"]["metrics"]["mpjpe"]["mean"] > 10


def test_means_are_those_of_the_clips_on_record(finished: Path) -> None:
    lines = (finished / "results" / "clips.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert Counter(row["system"] for row in rows) == dict.fromkeys(SYSTEMS, 5)
    jitters = [r["metrics"]["jitter"] for r in rows if (r["split"], r["system"]) == ("test", "model")]
    expected = sum(sum(values) / 2 for values in jitters) / 3
    summary = results_in(finished / "results")["splits"]["test"]["systems"]["model"]["metrics"]
    assert summary["jitter"]["mean"] == pytest.approx(expected)
    assert list((finished / "results").glob("clips.*.jsonl")) == []


def test_markdown_and_terminal_show_units_and_settings(
    finished: Path, pack: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(pack, finished / "results", checkpoint, baselines=BASELINES)
    shown = {"markdown": (finished / "results" / "results.md").read_text(), "terminal": capsys.readouterr().out}
    for name, text in shown.items():
        text = " ".join(text.split())
        for part in ("test: 3 clips, 94 frames", "at 30 fps", "22 joints", "world frame", "steps 2", "eta 0.5"):
            assert part in text, (name, part)
        assert "guidance none" in text
        assert "pa_mpjpe_egoallo" in text
    mpjpe = results_in(finished / "results")["splits"]["test"]["systems"]["nearest"]["metrics"]["mpjpe"]
    assert "| metric | unit | model | mean_pose | nearest | upright | smoothed | ground_truth |" in shown["markdown"]
    assert "| mpjpe | mm |" in shown["markdown"]
    assert f"{mpjpe['mean']:.4g} [{mpjpe['lo']:.4g}, {mpjpe['hi']:.4g}]" in shown["markdown"]


def test_an_interrupted_run_resumes_to_the_same_results(
    finished: Path, pack: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls = tmp_path / "results", []
    output.mkdir()
    started = (finished / "results" / "settings.json").read_text()
    (output / "settings.json").write_text(started)
    lines = (finished / "results" / "clips.jsonl").read_text().splitlines(keepends=True)
    # Two processes had written; one died in the middle of a line.
    (output / "clips.000.jsonl").write_text("".join(lines[:9]))
    (output / "clips.001.jsonl").write_text("".join(lines[12:20]) + lines[20][:50])
    original = runs.evaluate_clip
    monkeypatch.setattr(runs, "evaluate_clip", lambda *a: calls.append(a[1].id) or original(*a))
    run(pack, output, checkpoint, baselines=BASELINES)
    assert len(calls) == 30 - 9 - 8
    for name in ("results.json", "results.md", "clips.jsonl"):
        assert (output / name).read_text() == (finished / "results" / name).read_text(), name
    run(pack, output, checkpoint, baselines=BASELINES)
    assert len(calls) == 30 - 9 - 8
    assert (output / "settings.json").read_text() == started
    assert len((output / "sessions.jsonl").read_text().splitlines()) == 2


def test_settings_are_written_once_whatever_code_goes_on(
    pack: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [{"version": "0.1.0", "commit": name} for name in ("one", "two", "two")]
    for code in codes:
        monkeypatch.setattr(runs, "code_version", lambda code=code: code)
        results = run(pack, tmp_path, checkpoint, split="test")
        settings = json.loads((tmp_path / "settings.json").read_text())
        assert settings.pop("code") == codes[0]
        assert settings == results["settings"]
    sessions = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert [session["code"] for session in sessions] == codes
    assert results["code"] == codes[:2]


def write_data(folder: Path, clips: list[Clip], split: str = "test") -> Path:
    """A data set of the schema with these clips."""
    (folder / split).mkdir(parents=True)
    pq.write_table(rows_to_table([clip_to_row(clip) for clip in clips]), folder / split / "clips-00000.parquet")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def clip(number: int, source: str, name: str, **changes: Any) -> Clip:
    return Clip(name, source, moving_motion(20 + number, number), **changes)


@pytest.mark.usefixtures("cache")
def test_clips_of_one_id_and_two_sources_are_two(checkpoint: str, tmp_path: Path) -> None:
    clips = [clip(0, "a", "walk"), clip(1, "b", "walk"), clip(2, "b", "run")]
    data, motions = write_data(tmp_path / "data", clips), tmp_path / "motions"
    whole = run(data, tmp_path / "results", checkpoint, split="test", save_motions=motions)
    summary = whole["splits"]["test"]
    assert (summary["clips"], summary["frames"]) == (3, 20 + 21 + 22)
    rows = [json.loads(line) for line in (tmp_path / "results" / "clips.jsonl").read_text().splitlines()]
    assert {(row["source"], row["clip"], row["frames"]) for row in rows} == {
        ("a", "walk", 20), ("b", "walk", 21), ("b", "run", 22),
    }  # fmt: skip
    files = sorted(path.relative_to(motions).as_posix() for path in motions.rglob("*.npz"))
    assert files == [f"seed{seed}/{name}.npz" for seed in (0, 1) for name in ("a/walk", "b/run", "b/walk")]
    # By source, and both again: resuming finds all three, and the files score the same.
    by = summary["by"]["source"]
    assert {name: (of["clips"], of["frames"]) for name, of in by.items()} == {"a": (1, 20), "b": (2, 43)}
    assert "content" not in summary["by"]
    assert run(data, tmp_path / "results", checkpoint, split="test") == whole
    again = run(data, tmp_path / "again", split="test", metrics_only=motions, name="their system")
    ours, theirs = (r["splits"]["test"]["systems"] for r in (whole, again))
    assert list(theirs) == ["their system"]
    for metric, estimate in ours["model"]["metrics"].items():
        assert theirs["their system"]["metrics"][metric]["mean"] == pytest.approx(estimate["mean"], rel=2e-3, abs=2e-3)
    text = (tmp_path / "again" / "results.md").read_text()
    assert "| metric | unit | their system |" in text
    assert "- system: their system" in text


@pytest.mark.usefixtures("cache")
def test_clips_that_cannot_be_told_apart_or_lead_out_of_the_folder(checkpoint: str, tmp_path: Path) -> None:
    twice = write_data(tmp_path / "twice", [clip(0, "a", "walk"), clip(1, "a", "walk")])
    with pytest.raises(ValueError, match="holds 2 clips of the name a/walk; ids must be unique in their source"):
        run(twice, tmp_path / "results", checkpoint, split="test")
    outside = write_data(tmp_path / "outside", [clip(0, "..", "../walk"), clip(1, "a", "run")])
    with pytest.raises(ValueError, match=r"Clip \.\./walk of \.\. would be saved outside of --save-motions"):
        run(outside, tmp_path / "results", checkpoint, split="test", save_motions=tmp_path / "motions")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("window", [None, 12])
def test_rows_score_the_same_wherever_their_floor_is(window: int | None, checkpoint: str, tmp_path: Path) -> None:
    scores, heads = [], []
    for height in (0.0, 0.8):
        clips = []
        for number in range(3):
            made = clip(number, "a", f"walk{number}")
            up = made.motion.root_positions + torch.tensor([0.0, 0.0, height])
            clips.append(replace(made, motion=replace(made.motion, root_positions=up, floor_height=height)))
        place = tmp_path / str(height)
        data = write_data(write_data(place / "data", clips), clips, "train")
        run(data, place / "results", checkpoint, split="test", window=window, baselines=BASELINES,
            save_motions=place / "motions")  # fmt: skip
        run(data, place / "again", split="test", window=window, metrics_only=place / "motions")
        found = [results_in(place / folder)["splits"]["test"]["systems"] for folder in ("results", "again")]
        scores.append(found[0] | found[1])
        heads.append(min(Motion.load(path).joints[:, 15, 2].min() for path in place.rglob("motions/**/*.npz")))
    assert set(scores[0]) == {*SYSTEMS, "recorded"}
    for system, of in scores[0].items():
        for metric, estimate in of["metrics"].items():
            raised = scores[1][system]["metrics"][metric]["mean"]
            assert raised == pytest.approx(estimate["mean"], rel=2e-3, abs=0.02), (system, metric)
    # What is saved is in the clip's own world.
    assert float(heads[1] - heads[0]) == pytest.approx(0.8, abs=0.01)


@pytest.mark.usefixtures("cache")
def test_results_by_content(checkpoint: str, tmp_path: Path) -> None:
    named = [clip(0, "a", "x", content="walk"), clip(1, "a", "y", content="dance"), clip(2, "b", "z", content="walk")]
    data = write_data(tmp_path / "data", [*named, clip(3, "b", "w")])
    results = run(data, tmp_path / "results", checkpoint, split="test", baselines="upright")
    by = results["splits"]["test"]["by"]
    assert {name: of["clips"] for name, of in by["content"].items()} == {"(not stated)": 1, "dance": 1, "walk": 2}
    rows = [json.loads(line) for line in (tmp_path / "results" / "clips.jsonl").read_text().splitlines()]
    for system in ("model", "upright"):
        for metric in ("mpjpe", "pa_mpjpe", "jitter"):
            values = [r["metrics"][metric] for r in rows if (r["content"], r["system"]) == ("walk", system)]
            expected = sum(sum(v) / len(v) for v in values) / 2
            assert by["content"]["walk"]["systems"][system]["metrics"][metric]["mean"] == pytest.approx(expected)
    text = (tmp_path / "results" / "results.md").read_text()
    assert "test, by content (whole clips)." in text
    mpjpe = by["content"]["dance"]["systems"]["upright"]["metrics"]["mpjpe"]["mean"]
    assert f"| dance | 1 | upright | {mpjpe:.4g} [" in text
    assert "pa_mpjpe (mm)" in text


def test_windows(pack: Path, checkpoint: str, tmp_path: Path, finished: Path) -> None:
    results = run(pack, tmp_path / "results", checkpoint, split="test", window=12, baselines="ground_truth",
                  save_motions=tmp_path / "motions")  # fmt: skip
    summary = results["splits"]["test"]
    # Of 35, 26 and 33 frames: twice 2 windows and what is left of each.
    assert {key: summary[key] for key in ("clips", "windows", "frames", "frames_left_out", "clips_left_out")} == {
        "clips": 3, "windows": 6, "frames": 72, "frames_left_out": 22, "clips_left_out": 0,
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "results" / "clips.jsonl").read_text().splitlines()]
    assert sorted(r["clip"] for r in rows if r["system"] == "model") == [
        f"cd/{number}/{start}" for number in range(3) for start in (0, 12)
    ]
    assert all(row["frames"] == 12 for row in rows)
    # Sums are over a window; the mean is over windows.
    skate = [r["metrics"]["foot_skating_egoallo"] for r in rows if r["system"] == "model"]
    mean = sum(sum(values) / 2 for values in skate) / 6
    assert summary["systems"]["model"]["metrics"]["foot_skating_egoallo"]["mean"] == pytest.approx(mean)
    assert results["settings"]["mode"] == "windows of 12 frames that do not overlap"
    text = (tmp_path / "results" / "results.md").read_text()
    for words in ("test: 6 windows of 3 clips, 72 frames", "windows of 12 frames that do not overlap;",
                  "22 frames fill no window and are left out", "Mean over windows", "sum over a window"):  # fmt: skip
        assert words in text, words
    assert "whole clips" in (finished / "results" / "results.md").read_text()
    assert (tmp_path / "motions" / "seed1" / "cd" / "2" / "12.npz").is_file()
    again = run(pack, tmp_path / "again", split="test", window=12, metrics_only=tmp_path / "motions")
    recorded = again["splits"]["test"]["systems"]["recorded"]["metrics"]["mpjpe"]["mean"]
    assert recorded == pytest.approx(summary["systems"]["model"]["metrics"]["mpjpe"]["mean"], rel=2e-3)
    with pytest.raises(ValueError, match="window 12 there, None now"):
        run(pack, tmp_path / "results", checkpoint, split="test")
    short = run(pack, tmp_path / "short", split="test", window=30, metrics_only=finished / "motions")["splits"]["test"]
    assert (short["windows"], short["clips"], short["clips_left_out"], short["frames_left_out"]) == (2, 2, 1, 34)
    with pytest.raises(ValueError, match=r"--window is 60 frames, and no clip of the split test has so many .* 35"):
        run(pack, tmp_path / "long", checkpoint, split="test", window=60)


def test_how_samples_differ(finished: Path) -> None:
    systems = results_in(finished / "results")["splits"]["test"]["systems"]
    assert [name for name, of in systems.items() if of["samples"] is not None] == ["model", "smoothed"]
    samples, metrics = systems["model"]["samples"], systems["model"]["metrics"]
    rows = [json.loads(line) for line in (finished / "results" / "clips.jsonl").read_text().splitlines()]
    best = [min(r["metrics"]["mpjpe"]) for r in rows if (r["split"], r["system"]) == ("test", "model")]
    assert samples["samples"] == 2
    assert samples["best_mpjpe"]["mean"] == pytest.approx(sum(best) / 3)
    assert samples["error"]["all"]["mean"] == pytest.approx(metrics["mpjpe"]["mean"], rel=1e-4)
    for group, ratio in samples["ratio"].items():
        expected = samples["spread"][group]["mean"] / samples["error"][group]["mean"]
        assert ratio["mean"] == pytest.approx(expected), group
        assert ratio["lo"] <= ratio["mean"] <= ratio["hi"]
    text = (finished / "results" / "results.md").read_text()
    assert (
        "| system | samples | MPJPE, mean | MPJPE, best | spread | spread / error | trunk | arms | legs | feet |"
        in text
    )
    assert "test: how the samples of a clip differ, mm, mean over clips (whole clips)." in text


def test_a_limited_run_is_part_of_the_whole(finished: Path, pack: Path, checkpoint: str, tmp_path: Path) -> None:
    results = run(pack, tmp_path, checkpoint, split="test", limit=2)
    assert results["limit"] == 2
    assert results["splits"]["test"]["clips"] == 2
    limited = set((tmp_path / "clips.jsonl").read_text().splitlines())
    whole = set((finished / "results" / "clips.jsonl").read_text().splitlines())
    assert len(limited) == 2
    assert limited < whole
    # More clips and systems may join later: settings are what a number depends on.
    run(pack, tmp_path, checkpoint, baselines=BASELINES)
    assert set((tmp_path / "clips.jsonl").read_text().splitlines()) == whole


def test_other_settings_are_refused(finished: Path, pack: Path, checkpoint: str) -> None:
    before = (finished / "results" / "clips.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(eta 0\.5 there, 0\.0 now\); choose another --output"):
        run(pack, finished / "results", checkpoint, eta=0.0)
    with pytest.raises(ValueError, match="num_inference_steps 2 there, 3 now"):
        run(pack, finished / "results", checkpoint, steps=3)
    assert (finished / "results" / "clips.jsonl").read_bytes() == before


def test_steps_and_eta_reach_the_sampler(finished: Path, pack: Path, checkpoint: str, tmp_path: Path) -> None:
    changed = run(pack, tmp_path, checkpoint, split="test", steps=3, eta=0.0)
    assert (changed["settings"]["num_inference_steps"], changed["settings"]["eta"]) == (3, 0.0)

    def jitter(results):
        return results["splits"]["test"]["systems"]["model"]["metrics"]["jitter"]["mean"]

    assert jitter(changed) != pytest.approx(jitter(results_in(finished / "results")), rel=1e-3)


def test_saved_motions_score_the_same(finished: Path, pack: Path, tmp_path: Path) -> None:
    names = sorted(p.relative_to(finished / "motions").as_posix() for p in finished.rglob("motions/**/*.npz"))
    clips = ["ab/0", "ab/1", "cd/0", "cd/1", "cd/2"]
    assert names == [f"seed{seed}/{clip}.npz" for seed in (0, 1) for clip in clips]
    recorded = run(pack, tmp_path, metrics_only=finished / "motions", baselines="smoothed")
    assert recorded["settings"]["guidance"] == "as recorded"
    for split, summary in results_in(finished / "results")["splits"].items():
        systems = recorded["splits"][split]["systems"]
        assert list(systems) == ["recorded", "smoothed"]
        for ours, theirs in (("recorded", "model"), ("smoothed", "smoothed")):
            for metric, estimate in summary["systems"][theirs]["metrics"].items():
                again = [systems[ours]["metrics"][metric][key] for key in ("mean", "lo", "hi")]
                before = [estimate[key] for key in ("mean", "lo", "hi")]
                assert again == pytest.approx(before, rel=2e-3, abs=2e-3), metric


def test_a_data_set_of_the_schema_scores_as_its_pack(
    pack: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "data"
    run_import(MocapPackImporter((pack,)), data, progress=False)
    motions = finished / "motions"
    results = run(data, tmp_path / "results", split="test", metrics_only=motions, baselines="mean_pose")
    shards = sorted(data.glob("*/*.parquet"))
    assert results["settings"]["dataset"] == "data"
    content = b"".join(shard.read_bytes() for shard in shards)
    assert results["settings"]["dataset_sha256"] == hashlib.sha256(content).hexdigest()
    ours = results["splits"]["test"]["systems"]
    theirs = results_in(finished / "results")["splits"]["test"]["systems"]
    for system, other in (("recorded", "model"), ("mean_pose", "mean_pose")):
        for metric, estimate in ours[system]["metrics"].items():
            mean = theirs[other]["metrics"][metric]["mean"]
            assert estimate["mean"] == pytest.approx(mean, rel=1e-3, abs=1e-3), metric
    with pytest.raises(ValueError, match=r"dev.*\['train', 'test', 'id_test'\]"):
        run(data, tmp_path / "dev", split="dev", metrics_only=motions)


def test_motions_can_be_saved_after_the_scores(finished: Path, pack: Path, checkpoint: str, tmp_path: Path) -> None:
    run(pack, tmp_path / "results", checkpoint, split="test")
    run(pack, tmp_path / "results", checkpoint, split="test", save_motions=tmp_path / "motions")
    assert len(list((tmp_path / "motions").rglob("*.npz"))) == 2 * 3


def test_clips_of_another_rate_are_resampled(checkpoint: str, tmp_path: Path) -> None:
    write_shard(tmp_path, "fast", "test", [moving_motion(61, fps=60.0)])
    results = run(tmp_path, tmp_path / "results", checkpoint, split="test", baselines="ground_truth")
    summary = results["splits"]["test"]
    assert summary["frames"] == 31
    assert summary["systems"]["ground_truth"]["metrics"]["mpjpe"]["mean"] == 0
    assert results["settings"]["fps"] == FPS


def test_bad_requests_end_in_one_sentence(pack: Path, checkpoint: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no \*_dev\.parquet"):
        run(pack, tmp_path, checkpoint, split="dev")
    with pytest.raises(ValueError, match="--baselines names median; there are mean_pose, nearest"):
        run(pack, tmp_path, checkpoint, baselines="nearest,median")
    with pytest.raises(ValueError, match="--split is 'test,'"):
        run(pack, tmp_path, checkpoint, split="test,")
    with pytest.raises(ValueError, match="--name theirs names the system whose motions --metrics-only scores"):
        run(pack, tmp_path, checkpoint, name="theirs")
    for name in (" ", "a|b", "model", "nearest"):
        with pytest.raises(ValueError, match="--name is "):
            run(pack, tmp_path, metrics_only=finished / "motions", name=name)
    with pytest.raises(ValueError, match="leave out one of the two"):
        run(pack, tmp_path, metrics_only=finished / "motions", save_motions=tmp_path)
    with pytest.raises(FileNotFoundError, match="no motion file for clip cd/0"):
        run(pack, tmp_path, split="test", metrics_only=finished / "motions" / "seed0" / "ab")
    write_shard(tmp_path, "x", "test", [moving_motion(20)])
    with pytest.raises(FileNotFoundError, match=r"holds no \*_train\.parquet, which mean_pose and nearest"):
        run(tmp_path, tmp_path / "results", checkpoint, split="test", baselines="mean_pose")
    assert not (tmp_path / "results").exists()
    (tmp_path / "clips.jsonl").write_text("no result\n")
    with pytest.raises(ValueError, match=r"clips\.jsonl, line 1, is no result"):
        run(pack, tmp_path, checkpoint, split="test")


def test_a_motion_file_of_the_wrong_length_is_named(pack: Path, finished: Path, tmp_path: Path) -> None:
    clips = list(read_mocap_pack(pack, "test"))
    for clip in clips:
        path = tmp_path / "motions" / f"{clip.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        short = {k: getattr(clip.motion, k)[1:] for k in ("root_rotmats", "root_positions", "body_rotmats", "contacts")}
        replace(clip.motion, **short, timestamps=clip.motion.timestamps[1:]).save(path)
    with pytest.raises(ValueError, match=r"cd/0\.npz has 34 frames at 30 fps; clip cd/0 has 35 frames"):
        run(pack, tmp_path / "results", split="test", metrics_only=tmp_path / "motions")


def test_command_line(pack: Path, checkpoint: str, finished: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(module.evaluate)
    arguments = [checkpoint, "--dataset", str(pack), "-o", str(tmp_path), "--split", "test", "--num-samples", "2"]
    result = CliRunner().invoke(app, [*arguments, "--baselines", "ground_truth"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "pa_mpjpe" in result.stdout
    ours, whole = results_in(tmp_path), results_in(finished / "results")

    def model(results):
        return results["splits"]["test"]["systems"]["model"]

    assert model(ours) == model(whole)
    assert CliRunner().invoke(app, [checkpoint]).exit_code == 2


@pytest.mark.slow
def test_two_processes_equal_one(finished: Path, pack: Path, checkpoint: str, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--dataset", pack, "--output", tmp_path / "two", "--seeds", "2", "--baselines", BASELINES]
    process = subprocess.run(
        [*launch, module.__file__, checkpoint, *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.count("2 process(es) wrote") == 1
    one, two = results_in(finished / "results"), results_in(tmp_path / "two")
    assert one["settings"] == two["settings"]
    assert list(one["splits"]) == list(two["splits"])
    for split, summary in one["splits"].items():
        for name, system in summary["systems"].items():
            for metric, estimate in system["metrics"].items():
                again = two["splits"][split]["systems"][name]["metrics"][metric]
                # Equal but for rounding, where the number of threads differs.
                assert again["mean"] == pytest.approx(estimate["mean"], rel=1e-3, abs=1e-3), (name, metric)
    assert len((tmp_path / "two" / "clips.jsonl").read_text().splitlines()) == 30


def test_guidance_is_a_setting_of_the_run(pack: Path, checkpoint: str, tmp_path: Path) -> None:
    plain = run(pack, tmp_path / "plain", checkpoint, limit=1)
    guided = run(pack, tmp_path / "guided", checkpoint, limit=1, guidance="no_hands")
    assert guided["settings"]["guidance"] == "no_hands (post 20)"
    assert "guidance no_hands (post 20)" in (tmp_path / "guided" / "results.md").read_text()
    jitter = [results["splits"]["test"]["systems"]["model"]["metrics"]["jitter"] for results in (plain, guided)]
    assert jitter[1]["mean"] < jitter[0]["mean"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "no_feet"}, "guidance mode is 'no_feet'"),
        ({"guidance": "aria_wrist_only"}, "say nothing of seen hands"),
        ({"guidance_inner": True}, "--guidance-inner says how --guidance goes"),
        ({"guidance_floor": True}, "--guidance-floor says how --guidance goes"),
        ({"guidance": "no_hands", "metrics_only": Path("motions")}, "--metrics-only draws nothing"),
    ],
)
def test_guidance_that_cannot_be(pack: Path, checkpoint: str, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(pack, tmp_path / "results", checkpoint, **options)
