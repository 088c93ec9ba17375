"""The command: what it records of whom, and that tables and picture come from it."""

import json
from pathlib import Path

import pytest
import torch
from motion_grpo.cli import evaluate_critic as module

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion.artefacts import ARTEFACTS
from tests.tiny import moving_motion, tiny_denoiser, write_shard

SMALL = {"window": 16, "min_frames": 8, "artefact_windows": 3}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("places")
    (root / "pack").mkdir()
    write_shard(root / "pack", "ab", "id_test", [moving_motion(n, i) for i, n in enumerate((30, 40))])
    write_shard(root / "pack", "cd", "test", [moving_motion(n, 5 + i) for i, n in enumerate((35, 20, 18))])
    for name, eta in (("smooth", 0.0), ("rough", 1.0)):
        scheduler = EgoMotionSDEScheduler(timestep_spacing="trailing", eta=eta)
        pipeline = EgoMotionPipeline(tiny_denoiser(), scheduler, num_inference_steps=2, window=16, overlap=4)
        pipeline.save_pretrained(root / name)
    for name, tokens in (("ours", 4), ("theirs", 8)):
        MotionPerceptualModel(d_latent=8, num_blocks=1, num_heads=2, frames_per_token=tokens).save_pretrained(
            root / "runs" / name
        )
    return {path.name: path for path in (*root.iterdir(), *(root / "runs").iterdir())}


def run(places: dict[str, Path], output: Path, **options) -> dict:
    checkpoints = [str(places["ours"]), f"baseline={places['theirs']}"]
    policies = [str(places["smooth"]), str(places["rough"])]
    module.evaluate_critic(checkpoints, str(places["pack"]), output, policies, **SMALL, **options)
    return json.loads((output / "results.json").read_text())


def run_small(places: dict[str, Path], output: Path, **options) -> dict:
    """One model, one policy and one split of :func:`run`."""
    small = SMALL | {"split": "test"} | options
    module.evaluate_critic([str(places["ours"])], str(places["pack"]), output, [str(places["smooth"])], **small)
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(places, folder)
    return folder


def test_results_say_everything_and_no_path(finished: Path, places) -> None:
    text = (finished / "results.json").read_text()
    results = json.loads(text)
    assert str(places["ours"].parents[1]) not in text + (finished / "results.md").read_text()
    settings = results["settings"]
    assert (settings["dataset"], settings["seed"], settings["window"], settings["fps"]) == ("pack", 0, 16, 30.0)
    assert settings["splits"] == {"id_test": 2, "test": 3}
    assert {"motion_grpo", "torch", "diffusers", "scipy", "python"} == set(settings["versions"])
    assert list(results["policies"]) == ["smooth", "rough"]
    for policy, eta in (("smooth", 0.0), ("rough", 1.0)):
        pairs = results["policies"][policy]["pairs"]
        assert {part: (of["windows"], of["frames"], of["left_out"]) for part, of in pairs.items()} == {
            "id_test": (5, 70, 0),
            "test": (4, 64, 3),
        }
        assert {(of["eta"], of["num_inference_steps"], of["seed"]) for of in pairs.values()} == {(eta, 2, 0)}
    digests = [of["sha256_float16"] for p in results["policies"].values() for of in p["pairs"].values()]
    assert len(set(digests)) == 4
    assert [(name, of["checkpoint"], of["frames_per_token"]) for name, of in results["methods"].items()] == [
        ("ours", "ours", 4),
        ("baseline", "theirs", 8),
    ]
    for method in results["methods"].values():
        for policy in results["policies"]:
            assert method["cost"][policy]["ratio"] > 0
            for part, total in (("id_test", 5), ("test", 4)):
                of = method["accuracy"][policy][part]
                assert of["total"] == total
                assert of["percent"] == pytest.approx(100 * (1 - of["wrong"] / total))
                assert of["lo"] <= of["percent"] <= of["hi"]
        for part, total in (("id_test", 5), ("test", 4)):
            assert list(method["noticed"][part]) == ["lifted_5cm", "shorter_10cm"]
            assert {of["total"] for of in method["noticed"][part].values()} == {total}
            assert list(method["severity"][part]) == list(ARTEFACTS)
            assert {of["windows"] for of in method["severity"][part].values()} == {3}


def test_tables_and_picture_show_the_results(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    text = (finished / "results.md").read_text()
    header = "| method | smooth, id_test (5 pairs) | smooth, test (4 pairs) | rough, id_test (5 pairs) | rough, test (4"
    assert header in text
    of = results["methods"]["baseline"]["accuracy"]["rough"]["test"]
    row = next(line for line in text.splitlines() if line.startswith("| baseline") and "wrong" in line)
    assert row.endswith(f"{of['percent']:.2f} [{of['lo']:.2f}, {of['hi']:.2f}], {of['wrong']} wrong |")
    assert "| method | lifted_5cm, id_test | shorter_10cm, id_test | lifted_5cm, test | shorter_10cm, test |" in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert [row.removeprefix("| ") for row in rows if row.removeprefix("| ") in ARTEFACTS] == 2 * list(ARTEFACTS)
    curve = results["methods"]["ours"]["severity"]["test"]["jitter"]
    assert f"{curve['spearman']:.3f} [{curve['lo']:.3f}, {curve['hi']:.3f}] ({curve['pooled_spearman']:.3f})" in text
    assert f"({100 * results['methods']['ours']['cost']['smooth']['ratio']:.1f}%)" in text
    assert (finished / "severity.png").stat().st_size > 10_000


def test_pairs_and_scores_repeat(finished: Path, places, tmp_path) -> None:
    first, again = json.loads((finished / "results.json").read_text()), run_small(places, tmp_path)
    assert again["policies"]["smooth"]["pairs"]["test"] == first["policies"]["smooth"]["pairs"]["test"]
    ours, before = again["methods"]["ours"], first["methods"]["ours"]
    assert ours["accuracy"]["smooth"]["test"] == before["accuracy"]["smooth"]["test"]
    for part in ("noticed", "severity"):
        assert ours[part]["test"] == before[part]["test"]
    assert ours["state_dict_sha256"] == before["state_dict_sha256"]


def test_other_seeds_and_limits_reach_the_pairs(finished: Path, places, tmp_path) -> None:
    first = json.loads((finished / "results.json").read_text())
    other = run_small(places, tmp_path, seed=3, limit=2)
    assert other["settings"]["splits"] == {"test": 2}
    pairs = other["policies"]["smooth"]["pairs"]["test"]
    assert (pairs["seed"], pairs["windows"]) == (3, 3)
    assert pairs["sha256_float16"] != first["policies"]["smooth"]["pairs"]["test"]["sha256_float16"]


def test_bad_requests_end_in_one_sentence(places, tmp_path) -> None:
    pack, ours, smooth = (str(places[name]) for name in ("pack", "ours", "smooth"))
    with pytest.raises(ValueError, match="'=x' does not name a model as NAME=PATH"):
        module.evaluate_critic(["=x"], pack, tmp_path)
    with pytest.raises(ValueError, match="or its name was given before"):
        module.evaluate_critic([f"a={ours}", f"a={ours}"], pack, tmp_path)
    with pytest.raises(ValueError, match="--policy names smooth twice"):
        module.evaluate_critic([ours], pack, tmp_path, [smooth, smooth])
    with pytest.raises(ValueError, match="--split is 'test,'"):
        module.evaluate_critic([ours], pack, tmp_path, [smooth], split="test,")
    with pytest.raises(OSError, match="is no folder and no model that ships with this package"):
        module.evaluate_critic(["nowhere"], pack, tmp_path, [smooth])
    assert list(tmp_path.iterdir()) == []
