"""Cards say what is known, name what is missing, and never quote the evaluation of other weights."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.cards import write_checkpoint_card, write_dataset_card
from motion_grpo.cards.models import (
    KINDS,
    NOT_EVALUATED,
    POST_TRAINED,
    build_card,
    card_settings,
    load_lines,
    remember_facts,
)
from motion_grpo.cards.results import (
    before_and_after,
    read_critic_evaluation,
    read_pipeline_evaluation,
    state_dict_digest,
    write_entries,
)
from motion_grpo.cards.templates import DataFacts, SourceFacts
from motion_grpo.data import clip_to_row
from motion_grpo.data.schema import rows_to_table
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.training import (
    MotionGRPOConfig,
    PerceptualConfig,
)
from tests.cards.setup import CONFIGS, evaluate, results_of, tiny_critic, write_json
from tests.tiny import moving_clip, tiny_denoiser

DATA = DataFacts(
    "me/motions", (SourceFacts("tiny", "Tiny Motions", "CC BY 4.0", "Recorded by nobody.", "https://e.org"),)
)


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
    if kind in POST_TRAINED:
        facts |= {"base_model": "me/base", "base_evaluation": None}
    if kind == "perceptual":
        facts["policies"] = ["base", "paper_base"]
    return facts


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_and_its_metadata(kind):
    card = ModelCard(str(build_card(kind, facts_of(kind), tags=["walking"])))
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "other"
    assert card.data.datasets == ["me/motions"]
    assert {"motion", "egocentric", "smpl-h", "diffusers", "walking"} <= set(card.data.tags)
    assert ({"grpo", "trl"} <= set(card.data.tags)) == (kind == "grpo")
    assert card.data.base_model == ("me/base" if kind in POST_TRAINED else None)
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
