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
import pytest
import typer
from motion_grpo.cli import evaluate as module
from typer.testing import CliRunner

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler, evaluation
from motion_grpo.data import MocapPackImporter, read_mocap_pack, run_import
from motion_grpo.metrics import METRIC_UNITS
from motion_grpo.motion import FPS
from tests.tiny import moving_motion, tiny_denoiser, write_shard

SPLITS = {"id_test": ("ab", (30, 41)), "test": ("cd", (35, 26, 33)), "train": ("ef", (60, 50, 40))}
BASELINES = "mean_pose,nearest,smoothed,ground_truth"
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
        assert [s["samples_per_clip"] for s in split["systems"].values()] == [2, 1, 1, 2, 1]
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
    assert "| metric | unit | model | mean_pose | nearest | smoothed | ground_truth |" in shown["markdown"]
    assert "| mpjpe | mm |" in shown["markdown"]
    assert f"{mpjpe['mean']:.4g} [{mpjpe['lo']:.4g}, {mpjpe['hi']:.4g}]" in shown["markdown"]


def test_an_interrupted_run_resumes_to_the_same_results(
    finished: Path, pack: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls = tmp_path / "results", []
    output.mkdir()
    (output / "settings.json").write_text((finished / "results" / "settings.json").read_text())
    lines = (finished / "results" / "clips.jsonl").read_text().splitlines(keepends=True)
    # Two processes had written; one died in the middle of a line.
    (output / "clips.000.jsonl").write_text("".join(lines[:9]))
    (output / "clips.001.jsonl").write_text("".join(lines[12:20]) + lines[20][:50])
    original = evaluation.evaluate_clip
    monkeypatch.setattr(evaluation, "evaluate_clip", lambda *a: calls.append(a[1].id) or original(*a))
    run(pack, output, checkpoint, baselines=BASELINES)
    assert len(calls) == 25 - 9 - 8
    for name in ("results.json", "results.md", "clips.jsonl"):
        assert (output / name).read_text() == (finished / "results" / name).read_text(), name
    run(pack, output, checkpoint, baselines=BASELINES)
    assert len(calls) == 25 - 9 - 8


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
    jitter = lambda results: results["splits"]["test"]["systems"]["model"]["metrics"]["jitter"]["mean"]  # noqa: E731
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
                assert again == pytest.approx([estimate[key] for key in ("mean", "lo", "hi")], rel=2e-3, abs=2e-3), (
                    metric
                )


def test_a_data_set_of_the_schema_scores_as_its_pack(
    pack: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "data"
    run_import(MocapPackImporter(pack), data, progress=False)
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
            assert estimate["mean"] == pytest.approx(theirs[other]["metrics"][metric]["mean"], rel=1e-3, abs=1e-3), (
                metric
            )
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
    clips = [c for c in read_mocap_pack(pack, "test")]
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
    arguments = [checkpoint, "--dataset", str(pack), "-o", str(tmp_path), "--split", "test", "--seeds", "2"]
    result = CliRunner().invoke(app, [*arguments, "--baselines", "ground_truth"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "pa_mpjpe" in result.stdout
    ours, whole = results_in(tmp_path), results_in(finished / "results")
    model = lambda results: results["splits"]["test"]["systems"]["model"]  # noqa: E731
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
    assert len((tmp_path / "two" / "clips.jsonl").read_text().splitlines()) == 25
