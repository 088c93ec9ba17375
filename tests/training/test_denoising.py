"""The pre-trainer on a network of a few thousand weights: it learns, resumes exactly, and leaves files that load."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from motion_grpo.data import MotionWindows
from motion_grpo.data.batches import training_batch
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.training import DenoisingConfig, DenoisingTrainer
from tests.tiny import moving_clip, tiny_denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"


def trainer_of(folder: Path, clips=None, eval_clips=None, network=None, **settings) -> DenoisingTrainer:
    torch.manual_seed(0)
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "window": 12,
        "warmup_steps": 0,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
    }
    # transformers annotates some counts as float, and the shape checker takes it at its word.
    types = {field.name: field.type for field in fields(DenoisingConfig)}
    settings = {name: float(v) if "float" in str(types[name]) else v for name, v in (defaults | settings).items()}
    config = DenoisingConfig(output_dir=str(folder), **settings)
    clips = clips or [moving_clip(30, seed) for seed in range(5)]
    model = tiny_denoiser(rotation_representation="6d", **network or {})
    return DenoisingTrainer(model, config, MotionWindows(clips, config.window, seed=3), eval_clips)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trained(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.slow
def test_overfits_one_window(tmp_path):
    settings = {"max_steps": 40, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "mirror_probability": 0.0}
    weighted = {
        "noise_weighting": "uniform",
        "position_weight": 1.0,
        "velocity_weight": 0.1,
        "foot_contact_weight": 0.1,
    }
    trainer = trainer_of(tmp_path, clips=[moving_clip(12)] * 8, per_device_train_batch_size=8, **settings, **weighted)
    trainer.train()
    history = [log for log in trainer.state.log_history if "loss" in log]
    assert len(history) == 40
    terms = {"betas", "body_rotmats", "contacts", "position", "velocity", "foot_contact", "wrist"}
    assert {f"loss/{name}" for name in terms} == {name for name in history[0] if "loss/" in name}

    def mean(name, logs):
        return sum(log[name] for log in logs) / len(logs)

    for name in ("loss", "loss/position", "loss/body_rotmats"):
        assert mean(name, history[-10:]) < 0.5 * mean(name, history[:3]), name
    # The logged terms are those of the loss, by the weights asked for.
    log = history[-1]
    total = log["loss/body_rotmats"] + 0.1 * log["loss/betas"] + 0.1 * log["loss/contacts"]
    total += log["loss/position"] + 0.1 * log["loss/velocity"] + 0.1 * log["loss/foot_contact"]
    assert log["loss"] == pytest.approx(total, rel=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six steps at once, and three, then the other three in a new trainer."""
    folder = tmp_path_factory.mktemp("runs")
    # In the middle of an epoch of five steps; dropout and augmentation draw numbers, and the windows are seeded.
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "body_size_probability": 0.5}
    network = {"dropout_p": 0.1, "normalize_cond": True}
    whole = trainer_of(folder / "whole", network=network, **settings)
    whole.fit_condition_statistics()
    whole.train()
    resumed = trainer_of(folder / "resumed", network=network, **settings)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-3"))
    return whole, resumed, folder


class TestCheckpoints:
    def test_resumed_run_equals_the_uninterrupted_one(self, runs):
        whole, resumed, _ = runs
        assert whole.state.global_step == resumed.state.global_step == 6
        for name, value in weights(whole.denoiser).items():
            torch.testing.assert_close(weights(resumed.denoiser)[name], value, rtol=0, atol=1e-6, msg=name)
        for ours, theirs in zip(resumed.ema.shadow_params, whole.ema.shadow_params, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        losses = [
            [log["loss"] for log in trainer.state.log_history if log["step"] > 3 and "loss" in log]
            for trainer in (whole, resumed)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_models_load_as_diffusers_models(self, runs):
        whole, _, folder = runs
        last = folder / "whole" / "checkpoint-6"
        loaded, averaged = EgoMotionDenoiser.from_pretrained(last), EgoMotionDenoiser.from_pretrained(last / "ema")
        assert not averaged.training
        for name, value in weights(whole.denoiser).items():
            assert torch.equal(weights(loaded)[name], value), name
        for value, expected in zip(trained(averaged), whole.ema.shadow_params, strict=True):
            assert torch.equal(value, expected)
        distance = max(
            float((a.detach() - b).abs().max()) for a, b in zip(trained(loaded), whole.ema.shadow_params, strict=True)
        )
        assert distance > 1e-4
        # Statistics of the condition are not averaged, and are in both.
        assert torch.equal(averaged.cond_mean, whole.denoiser.cond_mean)
        assert averaged.cond_mean.ne(0).any()

    def test_only_transformers_own_state_is_pickled(self, runs):
        folder = runs[2] / "whole" / "checkpoint-3"
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        ours = {f"{where}{name}" for where in ("", "ema/") for name in ("config.json", WEIGHTS)}
        assert names == ours | {"trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(folder / name, weights_only=True)

    def test_average_by_hand(self, runs):
        """diffusers' decay after step k is min(0.999, k / (9 + k)); the first step keeps nothing of the start."""
        trainer = runs[0]
        assert trainer.ema.optimization_step == 6
        assert trainer.ema.get_decay(6) == pytest.approx(min(0.999, 6 / 15))


def test_training_moves_the_average_towards_the_weights(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=1)
    start = [p.detach().clone() for p in trained(trainer.denoiser)]
    trainer.train()
    moved = [p.detach() for p in trained(trainer.denoiser)]
    decay = trainer.ema.cur_decay_value
    assert trainer.ema.optimization_step == 1
    for average, before, after in zip(trainer.ema.shadow_params, start, moved, strict=True):
        torch.testing.assert_close(average, decay * before + (1 - decay) * after, rtol=0, atol=1e-6)


class TestEvaluation:
    def test_metrics_are_of_the_averaged_weights_and_reproducible(self, tmp_path):
        trainer = trainer_of(tmp_path, eval_clips=[moving_clip(20, 5), moving_clip(9, 6)])
        trainer.denoiser.train()
        before = weights(trainer.denoiser)
        metrics = trainer.evaluate()
        assert set(metrics) >= {"eval_mpjpe", "eval_mpjve", "eval_jitter"}
        # mm and mm/s of an untrained network, whose poses are near the rest pose.
        assert 20 < metrics["eval_mpjpe"] < 1000
        assert all(torch.equal(value, before[name]) for name, value in weights(trainer.denoiser).items())
        with torch.no_grad():
            for p in trainer.denoiser.parameters():
                p.add_(torch.randn_like(p))
        torch.manual_seed(77)
        assert trainer.evaluate() == metrics  # the average has not moved, and the noise is seeded
        trainer.ema.shadow_params = [p + 0.3 for p in trainer.ema.shadow_params]
        assert trainer.evaluate() != metrics

    def test_statistics_count_before_the_first_step(self, tmp_path):
        """They are measured after the trainer was made, and no average lags behind them."""
        trainer = trainer_of(tmp_path, network={"normalize_cond": True})
        trainer.fit_condition_statistics()
        with trainer.ema.in_place():
            assert trainer.denoiser.cond_mean.ne(0).any()

    def test_the_truth_would_score_zero(self, tmp_path, monkeypatch):
        """With the recorded state for a network, errors vanish and the jitter is the recording's."""
        clip = moving_clip(20, 5)
        trainer = trainer_of(tmp_path, eval_clips=[clip])
        item = torch.utils.data.default_collate([MotionWindows([clip], 20, random=False)[0]])
        truth = training_batch(item, trainer.skeleton, False).state
        monkeypatch.setattr("motion_grpo.training.denoising.recover_state", lambda *args, **options: truth)
        metrics = trainer.evaluate()
        assert metrics["eval_mpjpe"] < 0.01
        assert metrics["eval_mpjve"] < 1.0
        assert metrics["eval_jitter"] > 0

    def test_runs_during_the_training(self, tmp_path):
        trainer = trainer_of(tmp_path, eval_clips=[moving_clip(9)], max_steps=2, eval_strategy="steps", eval_steps=1)
        trainer.train()
        logged = [log["step"] for log in trainer.state.log_history if "eval_mpjpe" in log]
        assert logged == [1, 2]


def test_condition_statistics_are_those_of_the_training_windows(tmp_path):
    clips = [moving_clip(12, seed) for seed in range(3)]  # one possible window each
    trainer = trainer_of(tmp_path, clips=clips, network={"normalize_cond": True}, mirror_probability=0.0)
    trainer.fit_condition_statistics()
    windows = torch.utils.data.default_collate([trainer.train_dataset[i] for i in range(3)])
    cond = trainer.denoiser.condition(training_batch(windows, trainer.skeleton, False).head).flatten(0, 1)
    torch.testing.assert_close(trainer.denoiser.cond_mean, cond.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trainer.denoiser.cond_std, cond.std(0).clamp(min=1e-3), rtol=1e-3, atol=1e-5)


def test_condition_statistics_depend_on_the_seed_alone_and_take_no_random_numbers(tmp_path):
    """Mirroring, body sizes and device errors are drawn for them, and the training's own draws stay what they were."""
    changes = {"body_size_probability": 0.5, "head_error_degrees": 3.0, "floor_error_metres": 0.02}
    clips = [moving_clip(12, seed) for seed in range(3)]
    means = []
    for global_seed in (1, 2):
        trainer = trainer_of(tmp_path, clips=clips, network={"normalize_cond": True}, **changes)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        trainer.fit_condition_statistics()
        assert torch.equal(torch.get_rng_state(), before)
        means.append(trainer.denoiser.cond_mean)
    assert torch.equal(*means)


def test_networks_without_statistics_are_left_alone(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.fit_condition_statistics()
    assert not hasattr(trainer.denoiser, "cond_mean")


def test_unknown_weighting_is_refused(tmp_path):
    with pytest.raises(ValueError, match="noise_weighting is 'snr'; choose 'egoallo' or 'uniform'"):
        trainer_of(tmp_path, noise_weighting="snr")


def test_weighting_is_by_noise_level(tmp_path):
    assert trainer_of(tmp_path, noise_weighting="uniform").level_weights.eq(1).all()
    weights = trainer_of(tmp_path).level_weights
    assert (float(weights[0]), float(weights[-1])) == (pytest.approx(1.0), pytest.approx(0.01, abs=1e-5))


def test_saved_average_is_not_what_training_goes_on_with(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.ema.shadow_params = [torch.full_like(p, 0.25) for p in trainer.ema.shadow_params]
    before = weights(trainer.denoiser)
    trainer.save_averaged(tmp_path / "average")
    assert all(value.eq(0.25).all() for value in load_file(tmp_path / "average" / WEIGHTS).values())
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer.denoiser).items())
    assert json.loads((tmp_path / "average" / "config.json").read_text())["rotation_representation"] == "6d"
