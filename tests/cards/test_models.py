"""Cards say what is known, name what is missing, and never quote the evaluation of other weights."""

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.cards import record_run, write_checkpoint_card, write_dataset_card, write_run_card
from motion_grpo.cards.models import (
    KINDS,
    NOT_EVALUATED,
    build_card,
    card_settings,
    load_lines,
    remember_facts,
    shown,
    versions,
)
from motion_grpo.cards.results import (
    before_and_after,
    read_critic_evaluation,
    read_pipeline_evaluation,
    state_dict_digest,
    weights_digest,
    write_entries,
)
from motion_grpo.cards.sources import training_data
from motion_grpo.cards.templates import DataFacts, SourceFacts, check_metadata
from motion_grpo.data import MotionWindows, clip_to_row
from motion_grpo.data.schema import rows_to_table
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.training import (
    DenoisingConfig,
    DenoisingTrainer,
    MotionGRPOConfig,
    PerceptualConfig,
    PerceptualTrainer,
)
from tests.tiny import moving_clip, moving_motion, tiny_denoiser, write_shard

DATA = DataFacts(
    "me/motions", (SourceFacts("tiny", "Tiny Motions", "CC BY 4.0", "Recorded by nobody.", "https://e.org"),)
)
CONFIGS = {"pipeline": DenoisingConfig, "grpo": MotionGRPOConfig, "perceptual": PerceptualConfig}


def facts_of(kind: str) -> dict:
    """All that a card of this kind needs."""
    facts = {
        "name": "mine", "summary": "A model.", "license": "cc-by-4.0", "data": DATA, "body": "mannequin-x",
        "load": load_lines(kind, '"me/mine"'), "parameters": "1.00 M", "size": "2.0 MB", "precision": "fp16",
        "num_inference_steps": 5, "eta": 0.5, "evaluation": NOT_EVALUATED, "evaluation_note": None, "validation": None,
        "command": "accelerate launch x.py", "settings": card_settings(CONFIGS[kind], {}), "network": None,
        "steps": 1200, "batch": "32 windows", "frames": 128, "seed": 0, "hours": 0.5, "machine": "one CPU",
        "versions": {"torch": "2.9"}, "curves": None, "training_config": None, "limits": None,
    }  # fmt: skip
    if kind == "grpo":
        facts |= {"base_model": "me/base", "base_evaluation": None}
    if kind == "perceptual":
        facts["policies"] = ["base", "paper_base"]
    return facts


def results_of(weights: Path, scale: float = 1.0, **settings) -> dict:
    """What ``motion-grpo evaluate`` would write."""

    def estimate(mean: float, unit: str) -> dict:
        return {"mean": scale * mean, "lo": scale * mean - 1, "hi": scale * mean + 1, "unit": unit}

    metrics = {"mpjpe": estimate(50.0, "mm"), "jitter": estimate(2.0, "100 m/s^3"), "head_error": estimate(0.5, "mm")}
    summary = {"clips": 3, "frames": 90, "systems": {"model": {"samples_per_clip": 2, "metrics": metrics}}}
    stated = {"weights_sha256": weights_digest(weights), "dataset": "open_mocap_smplh", "dataset_sha256": "d"}
    stated |= {"num_inference_steps": 5, "eta": 1.0, "seeds": [0, 1], "fps": 30.0}
    return {"settings": stated | settings, "limit": None, "splits": {"id_test": summary, "test": summary}}


def critic_results(model: MotionPerceptualModel) -> dict:
    """What ``motion-grpo evaluate-critic`` would write, of this model and another."""
    accuracy = {"percent": 97.5, "lo": 96.0, "hi": 98.5, "wrong": 5, "total": 200, "mean_recorded": 0.9}
    curve = {
        "unit": "m/s",
        "severities": [0.0, 1.0],
        "mean_scores": [0.9, 0.1],
        "spearman": -0.9,
        "lo": -0.95,
        "hi": -0.8,
    }
    method = {
        "accuracy": {"base": {"test": accuracy}},
        "severity": {"test": {"jitter": curve | {"pooled_spearman": -0.7, "windows": 64}}},
    }
    methods = {
        "noise": method | {"state_dict_sha256": "0" * 64},
        "ours": method | {"state_dict_sha256": state_dict_digest(model)},
    }
    return {"settings": {"dataset": "open_mocap_smplh", "seed": 0, "window": 128}, "policies": {}, "methods": methods}


def tiny_critic() -> MotionPerceptualModel:
    return MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, frames_per_token=4)


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def evaluate(folder: Path, results: dict) -> None:
    """Puts an evaluation into a checkpoint folder."""
    write_json(folder / "evaluation" / "results.json", results)
    (folder / "evaluation" / "results.md").write_text("| metric | value |\n| --- | --- |\n| mpjpe | 50 |\n")


def remembered(kind: str) -> dict:
    """What facts.json holds beside what lies in the folder."""
    found = (
        "name",
        "load",
        "parameters",
        "size",
        "precision",
        "num_inference_steps",
        "eta",
        "evaluation",
        "validation",
    )
    facts = {
        name: value for name, value in facts_of(kind).items() if name not in (*found, "network", "base_evaluation")
    }
    return {"kind": kind, **facts}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "mine"
    EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(eta=0.25), 7).save_pretrained(folder)
    remember_facts(folder, remembered("pipeline"))
    return folder


@pytest.fixture
def pack(tmp_path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    for source in ("bandai1", "cmu"):
        write_shard(folder, source, "train", [moving_motion(20)])
    return folder


# ---- templates and metadata


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_and_its_metadata(kind):
    card = ModelCard(str(build_card(kind, facts_of(kind), tags=["walking"])))
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "other"
    assert card.data.datasets == ["me/motions"]
    assert {"motion", "egocentric", "smpl-h", "diffusers", "walking"} <= set(card.data.tags)
    assert ({"grpo", "trl"} <= set(card.data.tags)) == (kind == "grpo")
    assert card.data.base_model == ("me/base" if kind == "grpo" else None)
    for words in ("# mine", "A model.", "1,200 steps of 32 windows of 128 frames, seed 0, 0.5 hours on one CPU",
                  "torch 2.9", 'from_pretrained("me/mine")', "Recorded by nobody.", "CC BY 4.0", "Not for surveillance",
                  "medical", "The floor is flat", "Not evaluated"):  # fmt: skip
        assert words in card.text, words
    # Blank lines before headings and tables, or they would not be any.
    lines = card.text.split("\n")
    for before, line in pairwise(lines):
        if line.startswith("## ") or (line.startswith("| ") and not before.startswith("|")):
            assert before == "", line


@pytest.mark.parametrize("kind", KINDS)
def test_every_missing_fact_is_named(kind):
    facts = facts_of(kind)
    for name in facts:
        if name == "name":
            continue
        rest = {key: value for key, value in facts.items() if key != name}
        if kind == "perceptual" and name in ("num_inference_steps", "eta"):
            build_card(kind, rest)
            continue
        with pytest.raises(ValueError, match=rf"The {kind} card of mine needs {name}\b"):
            build_card(kind, rest)


def test_several_missing_facts_are_named_with_their_meaning():
    facts = facts_of("perceptual")
    del facts["hours"], facts["policies"]
    with pytest.raises(ValueError, match=r"needs hours \(wall time of the training\), policies \(whom it learned"):
        build_card("perceptual", facts)


def test_an_empty_fact_or_part_of_one():
    with pytest.raises(ValueError, match=r"The pipeline card of mine needs summary"):
        build_card("pipeline", facts_of("pipeline") | {"summary": " "})
    with pytest.raises(ValueError, match=r"lacks a part of a fact: .*rewards"):
        build_card("grpo", facts_of("grpo") | {"settings": {}})


def test_licenses():
    text = build_card("pipeline", facts_of("pipeline") | {"license": "cc-by-nc-4.0"}).text
    assert "the weights are CC BY-NC 4.0" in text
    assert "For commercial use" not in text
    free = DataFacts("x", (*DATA.sources, SourceFacts("cmu", "CMU", "Free for all uses", "By CMU.", "https://c.edu")))
    text = build_card("pipeline", facts_of("pipeline") | {"license": "cc-by-nc-4.0", "data": free}).text
    assert "For commercial use train on `--sources cmu`." in text
    text = build_card("pipeline", facts_of("pipeline") | {"license": "other"}).text
    assert "under the terms of the recordings above" in text


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("no metadata at all", "there are none"),
        ("---\n- a\n---\n", "there are none"),
        ("---\ntags: [a]\n---\n", "name no license"),
        ("---\nlicense: [mit]\n---\n", "license is"),
        ("---\nlicense: mit\ntags: motion\n---\n", "tags is 'motion'"),
        ("---\nlicense: mit\ntags: [1]\n---\n", "must be a list of texts"),
        ("---\nlicense: mit\ndatasets: [/home/me/data]\n---\n", "'/home/me/data' is no id"),
        ("---\nlicense: mit\nbase_model: a/b/c\n---\n", "'a/b/c' is no id"),
        (
            "---\nlicense: mit\nmodel-index:\n- name: a\n  results:\n  - task: {type: b}\n    dataset: {type: c}\n"
            "    metrics:\n    - type: mpjpe\n---\n",
            "lacks dataset.name, metrics.value",
        ),
    ],
)
def test_metadata_that_the_hub_refuses(metadata, message):
    with pytest.raises(ValueError, match=message):
        check_metadata(metadata)


# ---- evaluations


def test_an_evaluation_in_the_metadata(checkpoint):
    evaluate(checkpoint, results_of(checkpoint / "denoiser"))
    card = ModelCard.load(write_checkpoint_card(checkpoint))
    found = {(result.dataset_split, result.metric_type): result for result in card.data.eval_results}
    # head_error is not among the main metrics.
    assert set(found) == {(split, metric) for split in ("id_test", "test") for metric in ("mpjpe", "jitter")}
    result = found["test", "mpjpe"]
    assert result.metric_value == 50.0
    assert result.metric_name == "mpjpe (mm)"
    assert result.metric_args == {
        "unit": "mm",
        "interval_95": [49.0, 51.0],
        "over": "mean over 3 clips, 2 samples each",
    }
    assert result.dataset_args == {"num_inference_steps": 5, "eta": 1.0, "fps": 30.0, "seeds": [0, 1]}
    assert "| mpjpe | 50 |" in card.text
    assert "Not evaluated" not in card.text
    assert not (checkpoint / ".eval_results").exists()


def test_results_of_a_data_set_on_the_hub_name_its_tasks(tmp_path, checkpoint):
    """A leaderboard finds them by the data set's id and the tasks in its eval.yaml."""
    results = results_of(checkpoint / "denoiser", dataset="me/motions", dataset_revision="0" * 40)
    evaluate(checkpoint, results)
    session = {"started": "2026-01-02T03:04:05+00:00"}
    (checkpoint / "evaluation" / "sessions.jsonl").write_text(json.dumps(session) + "\n")
    write_checkpoint_card(checkpoint)
    path = checkpoint / ".eval_results" / "results.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert {entry.task_id: entry.value for entry in entries}["id_test/head_error"] == 0.5
    assert len(entries) == 6
    assert all(entry.notes.startswith(("mm;", "100 m/s^3;")) and "eta 1.0" in entry.notes for entry in entries)
    assert {(entry.dataset_id, entry.dataset_revision, entry.date) for entry in entries} == {
        ("me/motions", "0" * 40, session["started"])
    }

    evaluation = read_pipeline_evaluation(checkpoint / "evaluation" / "results.json", None)
    write_entries(evaluation, checkpoint, "me/model")
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    source = "https://huggingface.co/me/model/blob/main/evaluation/results.json"
    assert {entry.source_url for entry in entries} == {source}
    rows = [clip_to_row(replace(moving_clip(9), split=split)) for split in ("id_test", "test")]
    for row in rows:
        (tmp_path / "data" / row["split"]).mkdir(parents=True)
        pq.write_table(rows_to_table([row]), tmp_path / "data" / row["split"] / "a.parquet")
    made_up = SourceFacts(rows[0]["source"], "Made up", "cc-by-4.0", "By nobody.", "https://example.org")
    write_dataset_card(tmp_path / "data", title="Motions", license="other", summary="Some.", sources=[made_up])
    listed = yaml.safe_load((tmp_path / "data" / "eval.yaml").read_text())
    assert {entry.task_id for entry in entries} <= {task["id"] for task in listed["tasks"]}


def test_a_folder_tells_what_lies_in_it(checkpoint):
    (checkpoint / "training_curves.png").write_bytes(b"")
    (checkpoint / "training_config.yaml").write_text("window: 128\n")
    evaluate(checkpoint, results_of(checkpoint / "denoiser"))
    text = ModelCard.load(write_checkpoint_card(checkpoint)).text
    count = sum(p.numel() for p in tiny_denoiser().parameters())
    size = (checkpoint / "denoiser" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert f"{count / 1e6:.2f} M parameters, {size / 1e6:.1f} MB of fp32 safetensors" in text
    assert "7 sampling steps, eta 0.25." in text
    assert "![Training curves](training_curves.png)" in text
    assert "(training_config.yaml)" in text
    assert 'EgoMotionPipeline.from_pretrained("mine")' in text


def test_evaluations_of_other_weights_are_refused(checkpoint, tmp_path):
    results = results_of(checkpoint / "denoiser")
    evaluate(checkpoint, results | {"settings": results["settings"] | {"weights_sha256": "0" * 64}})
    with pytest.raises(ValueError, match="is the evaluation of another model: of weights with the digest 0000"):
        write_checkpoint_card(checkpoint)
    assert not (checkpoint / "README.md").exists()
    assert not (checkpoint / ".eval_results").exists()
    path = tmp_path / "critic.json"
    write_json(path, critic_results(tiny_critic()))
    with pytest.raises(ValueError, match=r"of other models \(noise, ours\); none has the digest"):
        read_critic_evaluation(path, tiny_critic())


def test_files_that_are_no_evaluation(tmp_path):
    path = tmp_path / "results.json"
    for content, message in (("{", "no JSON"), ("[]", "no settings"), ('{"settings": {}}', "has no 'weights_sha256'")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_pipeline_evaluation(path, None)
    with pytest.raises(ValueError, match="has no 'methods'"):
        read_critic_evaluation(path, tiny_critic())


def test_an_evaluation_that_is_not_there_has_to_be_admitted(checkpoint):
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        write_checkpoint_card(checkpoint)
    remember_facts(checkpoint, remembered("pipeline") | {"evaluation": NOT_EVALUATED})
    card = ModelCard.load(write_checkpoint_card(checkpoint))
    assert "Not evaluated on recordings that it has not seen." in card.text
    assert card.data.eval_results is None


def test_facts_that_are_missing_from_the_folder(checkpoint):
    (checkpoint / "facts.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no facts\.json"):
        write_checkpoint_card(checkpoint)
    remember_facts(checkpoint, {"kind": "chair"})
    with pytest.raises(ValueError, match="kind is 'chair'"):
        write_checkpoint_card(checkpoint)
    facts = remembered("pipeline") | {"evaluation": NOT_EVALUATED}
    del facts["machine"]
    remember_facts(checkpoint, facts)
    with pytest.raises(ValueError, match="The pipeline card of mine needs machine"):
        write_checkpoint_card(checkpoint)


def test_before_and_after_a_training(checkpoint, tmp_path):
    weights = checkpoint / "denoiser"
    write_json(tmp_path / "before.json", results_of(weights, num_inference_steps=10))
    write_json(tmp_path / "after.json", results_of(weights, scale=0.9))
    before, after = (read_pipeline_evaluation(tmp_path / name, None) for name in ("before.json", "after.json"))
    compared = before_and_after(before, after)
    assert compared["rows"][0] == {
        "split": "id_test", "metric": "mpjpe", "unit": "mm", "before": "50 [49, 51]", "after": "45 [44, 46]",
        "change": "-10.0%",
    }  # fmt: skip
    assert [(row["split"], row["metric"]) for row in compared["rows"][2:]] == [("test", "mpjpe"), ("test", "jitter")]
    assert compared["differ"] == ["num_inference_steps 10, then 5"]
    write_json(tmp_path / "other.json", results_of(weights, dataset_sha256="e"))
    with pytest.raises(ValueError, match="differ in dataset_sha256"):
        before_and_after(read_pipeline_evaluation(tmp_path / "other.json", None), after)
    write_json(tmp_path / "fewer.json", results_of(weights) | {"limit": 2})
    with pytest.raises(ValueError, match="of other clips"):
        before_and_after(read_pipeline_evaluation(tmp_path / "fewer.json", None), after)


def test_a_post_trained_checkpoint(checkpoint):
    results = results_of(checkpoint / "denoiser", scale=0.9)
    evaluate(checkpoint, results)
    write_json(checkpoint / "evaluation" / "base_results.json", results_of(checkpoint / "denoiser"))
    settings = card_settings(MotionGRPOConfig, {"rewards": ["position", "rotation"], "reward_weights": [1.0, 0.5]})
    remember_facts(checkpoint, remembered("grpo") | {"settings": settings, "base_model": "paper_base"})
    card = ModelCard.load(write_checkpoint_card(checkpoint))
    assert card.data.base_model is None  # it is named in the text; on the Hub no such model is known
    assert "| split | metric | unit | paper_base | mine | change |" in card.text
    assert "| id_test | mpjpe | mm | 50 [49, 51] | 45 [44, 46] | -10.0% |" in card.text
    assert "| rotation | 0.5 |" in card.text
    assert "Groups of 16 samples (G), 10 sampling steps (n), eta 1.0" in card.text


def test_a_perceptual_checkpoint(tmp_path):
    folder = tmp_path / "perceptual"
    model = tiny_critic()
    model.save_pretrained(folder)
    evaluate(folder, critic_results(model))
    (folder / "evaluation" / "severity.png").write_bytes(b"")
    remember_facts(folder, remembered("perceptual"))
    card = ModelCard.load(write_checkpoint_card(folder))
    found = {(result.dataset_split, result.metric_type): result for result in card.data.eval_results}
    assert found["test", "accuracy_base"].metric_value == 97.5
    assert found["test", "accuracy_base"].metric_args["unit"] == "%"
    assert found["test", "spearman_jitter"].metric_value == -0.9
    assert "motions that base and paper_base drew for the same heads" in card.text
    assert "![Score by severity](evaluation/severity.png)" in card.text
    assert "MotionPerceptualModel.from_pretrained()" in card.text
    noisy = card_settings(PerceptualConfig, {"negatives": "gt_noise", "noise_scale": 0.1, "artefact_negatives": 3})
    remember_facts(folder, remembered("perceptual") | {"settings": noisy})
    text = ModelCard.load(write_checkpoint_card(folder)).text
    assert "recorded poses with Gaussian noise of 0.1 radians, 3 of 15 with artefacts made by hand." in text


# ---- runs


LOG = [{"step": 10, "loss": 1.0, "epoch": 0.5}, {"step": 20, "loss": 0.5, "epoch": 1.0},
       {"step": 20, "eval_mpjpe": 61.234, "eval_runtime": 3.0}, {"step": 20, "train_runtime": 1800.0}]  # fmt: skip


def run_card(folder: Path, kind: str = "pipeline", log: list | None = None, **options) -> ModelCard:
    options = {"evaluation": NOT_EVALUATED} | options
    args = CONFIGS[kind](str(folder), use_cpu=True, report_to="none", **options.pop("settings", {}))
    model = tiny_critic() if kind == "perceptual" else tiny_denoiser()
    return ModelCard.load(write_run_card(kind, model, args, LOG if log is None else log, **options))


def test_a_run_tells_what_it_knows(tmp_path, pack):
    folder = tmp_path / "run"
    args = DenoisingConfig(str(folder), use_cpu=True, report_to="none")
    record_run(args, data={"dataset_name": str(pack), "sources": ["cmu"]}, model={"model_name_or_path": None})
    card = run_card(folder)
    assert card.data.license == "other"
    assert card.data.datasets is None
    assert card.data.base_model is None
    assert "mocap.cs.cmu.edu" in card.text
    assert "Bandai" not in card.text
    for words in ("# run:", "20 steps of 256 windows of 128 frames", "0.5 hours on one CPU", "mpjpe 61.23 mm",
                  "at step 20", "Not evaluated on recordings", "ema_decay: 0.999", "d_latent: 16",
                  f"diffusers {versions()['diffusers']}", "(training_curves.png)"):  # fmt: skip
        assert words in card.text, words
    assert "eval_runtime" not in card.text
    assert (folder / "training_curves.png").stat().st_size > 1000
    assert str(tmp_path) not in str(card)


def test_a_run_that_nobody_has_told_its_data(tmp_path, pack):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"The pipeline card of run needs data \(what it was trained on\)"):
        run_card(tmp_path / "run")
    card = run_card(tmp_path / "run", dataset=str(pack), name="walker", base_model="me/base", license="mit", tags=["a"])
    assert (card.data.license, card.data.base_model) == ("mit", "me/base")
    assert "a" in card.data.tags
    assert "# walker" in card.text
    assert "fine-tuned from me/base on open_mocap_smplh" in card.text


def test_a_base_model_on_this_machine_is_not_named_by_its_place(tmp_path, pack):
    (tmp_path / "run").mkdir()
    card = run_card(tmp_path / "run", dataset=str(pack), base_model=str(tmp_path / "started_from"), log=[])
    assert "started_from" in card.text
    assert str(tmp_path) not in str(card)
    assert shown("me/base") == "me/base"


def test_a_run_before_it_has_logged_anything(tmp_path, pack):
    (tmp_path / "run").mkdir()
    card = run_card(tmp_path / "run", dataset=str(pack), log=[])
    assert "0 steps of" in card.text
    assert "training_curves" not in card.text


def test_a_run_with_an_evaluation(tmp_path, pack):
    folder = tmp_path / "run"
    EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler()).save_pretrained(folder / "pipeline")
    evaluate(folder, results_of(folder / "pipeline" / "denoiser"))
    card = run_card(folder, dataset=str(pack), evaluation=folder / "evaluation")
    assert {result.metric_value for result in card.data.eval_results} == {50.0, 2.0}
    evaluate(folder, results_of(folder / "pipeline" / "denoiser", weights_sha256="f" * 64))
    with pytest.raises(ValueError, match="another model"):
        run_card(folder, dataset=str(pack), evaluation=folder / "evaluation")


def test_a_post_training_run(tmp_path, pack):
    (tmp_path / "run").mkdir()
    log = [{"step": 1, "reward": 0.5, "rewards/position/mean": 0.5, "rewards/position/std": 0.1}]
    settings = {"rewards": ["position"], "num_generations": 4, "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 2}  # fmt: skip
    card = run_card(tmp_path / "run", "grpo", log, dataset=str(pack), base_model="base", settings=settings)
    assert card.data.base_model is None
    assert {"grpo", "trl"} <= set(card.data.tags)
    assert "| position | 1.0 |" in card.text
    assert "1 steps of 16 samples, 4 for each of 4 windows, of 128 frames" in card.text
    assert "(training_curves.png)" in card.text
    with pytest.raises(ValueError, match=r"needs base_model \(the model that the training started from\)"):
        run_card(tmp_path / "run", "grpo", log, dataset=str(pack), settings=settings)


def test_a_perceptual_run(tmp_path, pack):
    (tmp_path / "run").mkdir()
    card = run_card(tmp_path / "run", "perceptual", dataset=str(pack), policies=[str(tmp_path / "base"), "me/other"])
    assert "motions that base and me/other drew" in card.text
    with pytest.raises(ValueError, match="needs policies"):
        run_card(tmp_path / "run", "perceptual", dataset=str(pack))


@pytest.mark.parametrize("kind", ["pipeline", "perceptual"])
def test_trainers_write_their_cards(kind, tmp_path, pack):
    """By the hook that transformers calls when it pushes."""
    windows = MotionWindows([moving_clip(20)], length=16, seed=0)
    settings = {"max_steps": 1, "per_device_train_batch_size": 1, "window": 16, "logging_steps": 1.0}
    args = CONFIGS[kind](str(tmp_path / "run"), use_cpu=True, report_to="none", disable_tqdm=True, **settings)
    if kind == "pipeline":
        trainer = DenoisingTrainer(tiny_denoiser(), args, windows)
    else:
        policy = EgoMotionPipeline.from_pretrained("base")
        trainer = PerceptualTrainer(tiny_critic(), args, windows, policies=[policy])
    (tmp_path / "run").mkdir(exist_ok=True)
    trainer.state.log_history = LOG
    with pytest.raises(ValueError, match="needs data"):
        trainer.create_model_card()
    trainer.create_model_card(model_name="me-model", dataset=str(pack), license="mit", tags="walking", tasks="x")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.license == "mit"
    assert "walking" in card.data.tags
    assert "# me-model" in card.text
    assert "Not evaluated" in card.text
    assert ("motions that base drew" in card.text) == (kind == "perceptual")


def test_data_of_a_training(pack, tmp_path):
    facts = training_data(str(pack))
    assert facts.name == "open_mocap_smplh"
    assert [source.name for source in facts.sources] == ["bandai1", "cmu"]
    assert all(all(asdict(source).values()) for source in facts.sources)
    with pytest.raises(ValueError, match="no recording of rich"):
        training_data(str(pack), ["rich"])
    with pytest.raises(FileNotFoundError):
        training_data(str(tmp_path))
