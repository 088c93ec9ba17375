"""Cards that training runs write."""

from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.cards import record_run, write_run_card
from motion_grpo.cards.models import (
    NOT_EVALUATED,
    shown,
    versions,
)
from motion_grpo.cards.sources import training_data
from motion_grpo.data import MotionWindows
from motion_grpo.training import (
    DenoisingConfig,
    DenoisingTrainer,
    PerceptualTrainer,
)
from tests.cards.setup import CONFIGS, evaluate, results_of, tiny_critic
from tests.tiny import moving_clip, moving_motion, tiny_denoiser, write_shard


@pytest.fixture
def pack(tmp_path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    for source in ("bandai1", "cmu"):
        write_shard(folder, source, "train", [moving_motion(20)])
    return folder


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
