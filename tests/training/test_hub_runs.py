"""Checkpoints that outlive a kill at any moment, and that diffusers reads."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from motion_grpo.models import EgoMotionDenoiser, MotionPerceptualModel
from motion_grpo.training.hub_runs import newest_checkpoint
from tests.tiny import moving_clip
from tests.training.perceptual_setup import PerceptualTrainer, weights
from tests.training.perceptual_setup import trainer_of as perceptual_trainer
from tests.training.test_denoising import trainer_of as denoising_trainer

WEIGHTS = "diffusion_pytorch_model.safetensors"


def checkpoint(folder: Path, step: int, state: str | None = "{}") -> str:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if state is not None:
        (path / TRAINER_STATE_NAME).write_text(state)
    return str(path)


class TestNewest:
    def test_numbers_count_as_numbers(self, tmp_path):
        checkpoint(tmp_path, 9)
        newest = checkpoint(tmp_path, 10)
        for name in ("checkpoint-last", "checkpoint-11.tmp", "my-checkpoint-12"):
            (tmp_path / name).mkdir()
            (tmp_path / name / TRAINER_STATE_NAME).write_text("{}")
        (tmp_path / "checkpoint-13").write_text("a file")
        assert newest_checkpoint(tmp_path) == newest

    @pytest.mark.parametrize("state", [None, "", '{"global_step": 3', "\x00\x00\x00"])
    def test_one_cut_short_is_passed_over(self, tmp_path, state):
        whole = checkpoint(tmp_path, 2)
        checkpoint(tmp_path, 4, state)
        checkpoint(tmp_path, 6, state)
        assert newest_checkpoint(str(tmp_path)) == whole

    def test_none(self, tmp_path):
        checkpoint(tmp_path, 4, None)
        assert newest_checkpoint(tmp_path) is None
        assert newest_checkpoint(tmp_path / "nowhere") is None


def critic_trainer(folder: Path, **settings) -> PerceptualTrainer:
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "negatives": "gt_noise"} | settings
    return perceptual_trainer(folder, eval_clips=[moving_clip(12, 9)], policies=[], **settings)


def interrupted(write):
    """The same, but that of checkpoint-4 only half of every file is there when the process ends."""

    def write_half(*args, **options) -> None:
        write(*args, **options)
        path = Path(next(arg for arg in args if isinstance(arg, str)))
        folder = path if path.is_dir() else path.parent
        if folder.name == "checkpoint-4":
            for file in folder.iterdir():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            raise KeyboardInterrupt

    return write_half


class TestKilled:
    """While a checkpoint is being written; the run goes on from the one before, and writes it anew."""

    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory):
        trainer = critic_trainer(tmp_path_factory.mktemp("whole"))
        trainer.train()
        return weights(trainer.model)

    @pytest.mark.parametrize(
        ("owner", "step"),
        [
            (Trainer, "save_model"),
            (Trainer, "_save_optimizer_and_scheduler"),
            (Trainer, "_save_rng_state"),
            (TrainerState, "save_to_json"),
        ],
    )
    def test_while_writing(self, tmp_path, monkeypatch, whole, owner, step):
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, interrupted(getattr(owner, step)))
            with pytest.raises(KeyboardInterrupt):
                critic_trainer(tmp_path).train()
        broken = tmp_path / "checkpoint-4"
        assert list(broken.iterdir())
        assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
        critic_trainer(tmp_path).train(resume_from_checkpoint=newest_checkpoint(tmp_path))
        assert newest_checkpoint(tmp_path) == str(broken)
        stored = MotionPerceptualModel.from_pretrained(broken).state_dict()
        for name, value in whole.items():
            torch.testing.assert_close(stored[name], value, rtol=0, atol=1e-6, msg=name)


def best_at(trainer, monkeypatch, name: str, values: list[float]) -> None:
    """Evaluations that find these."""
    found = iter(values)

    def evaluate(**options) -> dict[str, float]:
        metrics = {f"eval_{name}": next(found)}
        trainer.log(dict(metrics))
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    monkeypatch.setattr(trainer, "evaluate", evaluate)


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}


class TestBest:
    def test_critic(self, tmp_path, monkeypatch):
        metric = {"metric_for_best_model": "accuracy", "greater_is_better": True}
        trainer = critic_trainer(tmp_path, **BEST | metric, save_steps=1, save_total_limit=2)
        best_at(trainer, monkeypatch, "accuracy", [50.0, 90.0, 70.0, 80.0])
        trainer.train()
        assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-2"
        stored = MotionPerceptualModel.from_pretrained(tmp_path / "checkpoint-2").state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in weights(trainer.model).items())
        last = MotionPerceptualModel.from_pretrained(tmp_path / "checkpoint-4").state_dict()
        assert any(not torch.equal(value, last[name]) for name, value in stored.items())
        # What is saved afterwards is the best.
        trainer.save_model(str(tmp_path / "final"))
        final = MotionPerceptualModel.from_pretrained(tmp_path / "final").state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in final.items())

    def test_denoiser_with_its_average(self, tmp_path, monkeypatch):
        metric = {"metric_for_best_model": "mpjpe", "greater_is_better": False}
        trainer = denoising_trainer(tmp_path, eval_clips=[moving_clip(9)], max_steps=3, save_steps=1, **BEST | metric)
        best_at(trainer, monkeypatch, "mpjpe", [60.0, 40.0, 50.0])
        trainer.train()
        stored = EgoMotionDenoiser.from_pretrained(tmp_path / "checkpoint-2")
        averaged = EgoMotionDenoiser.from_pretrained(tmp_path / "checkpoint-2" / "ema")
        assert all(torch.equal(value, stored.state_dict()[name]) for name, value in weights(trainer.denoiser).items())
        for ours, theirs in zip(
            trainer.ema.shadow_params, (p for p in averaged.parameters() if p.requires_grad), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_gradient_checkpointing_of_a_diffusers_model(tmp_path):
    """transformers would look for a method of its own models."""
    trainer = denoising_trainer(tmp_path, max_steps=1, gradient_checkpointing=True)
    assert trainer.denoiser.is_gradient_checkpointing
    trainer.train()
    assert trainer.state.global_step == 1
