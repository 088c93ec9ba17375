"""What the trainers share beside training: evaluation of what is given, trackers, the output folder."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from motion_grpo.data import MotionWindows
from motion_grpo.training.output_folder import prepare_output
from tests.tiny import moving_clip
from tests.training import perceptual_setup, test_denoising
from tests.training.grpo.setup import config, trainer

MAKERS = {
    "denoising": lambda folder, **settings: test_denoising.trainer_of(folder, **settings),
    "perceptual": lambda folder, **settings: perceptual_setup.trainer_of(folder, **settings),
    "grpo": lambda folder, **settings: trainer(folder, **settings),
}
CLIPS = [moving_clip(20, 9), moving_clip(24, 11)]


@pytest.mark.parametrize("kind", ["denoising", "grpo"])
def test_evaluates_the_clips_that_are_given(kind, tmp_path):
    run = MAKERS[kind](tmp_path, eval_clips=CLIPS)
    both, first, second = run.evaluate(), run.evaluate(CLIPS[:1]), run.evaluate(eval_dataset=CLIPS[1:])
    assert first["eval_mpjpe"] != pytest.approx(second["eval_mpjpe"])
    if kind == "grpo":  # the noise of a clip is its own
        assert both["eval_mpjpe"] == pytest.approx((first["eval_mpjpe"] + second["eval_mpjpe"]) / 2)
    named = run.evaluate({"a": CLIPS[:1], "b": CLIPS[1:]}, metric_key_prefix="test")
    assert named["test_a_mpjpe"] == pytest.approx(first["eval_mpjpe"])
    assert named["test_b_mpjpe"] == pytest.approx(second["eval_mpjpe"])
    assert named.keys() == {n.replace("eval_", f"test_{part}_") for part in "ab" for n in first}
    for wrong in (MotionWindows(CLIPS, 12, seed=0), "val", CLIPS[0], [CLIPS[0].motion]):
        with pytest.raises(ValueError, match=r"^eval_dataset is a \w+; whole clips are recovered: pass a list of Clip"):
            run.evaluate(wrong)
    with pytest.raises(ValueError, match="There are no clips to evaluate on; pass some to evaluate"):
        MAKERS[kind](tmp_path).evaluate()
    with pytest.raises(ValueError, match="There are no clips"):
        run.evaluate([])


def test_evaluates_the_windows_that_are_given(tmp_path):
    own, given = (MotionWindows([moving_clip(40, seed)] * 4, 12, random=False) for seed in (9, 11))
    run = MAKERS["perceptual"](tmp_path)
    torch.manual_seed(1)
    for parameter in run.model.parameters():  # a new one gives every motion the same score
        parameter.data.normal_(std=0.3)
    named = run.evaluate({"own": own, "given": given})
    assert {name.split("_accuracy")[0] for name in named} == {"eval_own", "eval_given", "epoch"}
    for wrong in ([moving_clip(20)], None):
        with pytest.raises(ValueError, match=r"eval_dataset is a \w+; the accuracy is that on windows"):
            run.evaluate(wrong)


@pytest.mark.parametrize(
    ("kind", "loads"),
    [("denoising", "EgoMotionPipeline"), ("perceptual", "MotionPerceptualModel"), ("grpo", "EgoMotionPipeline")],
)
def test_predict_says_what_to_do_instead(kind, loads, tmp_path):
    with pytest.raises(NotImplementedError, match=rf"has no predict\(\): save_result\(folder\) writes what {loads}\."):
        MAKERS[kind](tmp_path).predict(CLIPS)


class Writer:
    """In place of TensorBoard's: remembers texts and numbers."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.scalars: dict[str, float] = {}

    def add_text(self, name: str, text: str) -> None:
        self.texts[name] = text

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = value

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Tracked(TrainerCallback):
    """Does with a model's configuration what other trackers of transformers do."""

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.settings = args.to_sanitized_dict()
        if hasattr(model, "config"):
            self.told = model.config.to_dict()
            assert type(self.told) is dict
            assert isinstance(model.config, FrozenDict)
            json.dumps(self.told)


@pytest.mark.parametrize("kind", MAKERS)
def test_trackers_are_told_what_is_trained(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # its fork is the second choice
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    run, writer, tracked = MAKERS[kind](tmp_path, max_steps=1), Writer(), Tracked()
    run.add_callback(integration_utils.TensorBoardCallback(tb_writer=writer))
    run.add_callback(tracked)
    run.train()
    assert json.loads(writer.texts["args"])["max_steps"] == 1
    assert "train/loss" in writer.scalars
    assert tracked.settings["max_steps"] == 1
    if kind == "grpo":  # a policy has no configuration of its own
        return
    assert json.loads(writer.texts["model_config"]).items() >= {"d_latent": run.model.config.d_latent}.items()
    run.save_result(tmp_path / "result")
    stored = type(run.diffusers_model).from_pretrained(
        tmp_path / "result" / "denoiser" if kind == "denoising" else tmp_path / "result"
    )
    assert {k: v for k, v in stored.config.items() if k[0] != "_"} == {
        k: v for k, v in tracked.told.items() if k[0] != "_"
    }


def leave_a_run(folder: Path) -> set[str]:
    for name in ("checkpoint-4", "checkpoint-12", "model", "notes"):
        (folder / name).mkdir(parents=True)
    for name in ("run.json", "training_log.json", "README.md", "sessions.jsonl", "checkpoint-4/a.txt", "config.yaml"):
        (folder / name).write_text("{}")
    return {path.name for path in folder.iterdir()}


def test_a_folder_with_another_run_is_left_alone(tmp_path):
    args, present = config(tmp_path / "run"), leave_a_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run holds another run \(checkpoint-12, checkpoint-4, model\); add --resume"):
        prepare_output(args, resume=False, overwrite=False)
    prepare_output(args, resume=True, overwrite=False)
    with pytest.raises(ValueError, match="Both --resume and --overwrite are set"):
        prepare_output(args, resume=True, overwrite=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == present


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path):
    leave_a_run(tmp_path / "run")
    prepare_output(config(tmp_path / "run"), resume=False, overwrite=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"notes", "config.yaml"}


@pytest.mark.parametrize("traces", [(), ("README.md",), ("config.yaml", "logs")])
def test_a_folder_without_a_run_is_free(tmp_path, traces):
    for name in traces:
        (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        prepare_output(config(tmp_path), resume=False, overwrite=overwrite)
        prepare_output(config(tmp_path / "new"), resume=False, overwrite=overwrite)
    assert {path.name for path in tmp_path.iterdir()} == set(traces)


@pytest.mark.parametrize("trace", ["run.json", "training_log.json", "pipeline", "model", "checkpoint-1"])
def test_every_trace_of_a_run_tells_it(tmp_path, trace):
    (tmp_path / trace).mkdir()
    with pytest.raises(ValueError, match=f"holds another run \\({trace}\\)"):
        prepare_output(config(tmp_path), resume=False, overwrite=False)
