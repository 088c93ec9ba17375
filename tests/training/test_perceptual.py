"""The contrastive trainer: what it takes for made-up motion, how it counts it, and that it learns to tell it apart."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from motion_grpo.body import Skeleton
from motion_grpo.data import StreamedWindows
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.inference.rollout import rollout
from motion_grpo.models import MotionPerceptualModel, MotionPerceptualModelOutput
from motion_grpo.motion import MotionState
from motion_grpo.training import PerceptualConfig, PerceptualTrainer
from motion_grpo.training import perceptual as perceptual_module
from tests.tiny import moving_clip, tiny_perceptual_model, tiny_pipeline
from tests.training.perceptual_setup import Critic, batch_of, recorded, trainer_of, weights

ROOT = Path(__file__).parents[2]


class TestLoss:
    def test_info_nce_by_hand(self, tmp_path):
        """Eq. 9: -log(exp(s+ / delta) / (exp(s+ / delta) + sum exp(s- / delta))), mean over heads."""
        trainer = trainer_of(tmp_path, num_negatives=2, temperature=0.5)
        critic = Critic(torch.tensor([[0.9, 0.2, 0.4], [0.3, 0.6, 0.1]]))
        loss = trainer.compute_loss(critic, batch_of(trainer, 0, 1)).detach()
        first = -math.log(math.exp(1.8) / (math.exp(1.8) + math.exp(0.4) + math.exp(0.8)))
        second = -math.log(math.exp(0.6) / (math.exp(0.6) + math.exp(1.2) + math.exp(0.2)))
        assert float(loss) == pytest.approx((first + second) / 2, rel=1e-6)
        # Of four comparisons the second head loses one.
        logs = {"loss": 1.0}
        trainer.log(logs)
        expected = {"accuracy": 3 / 4, "score/recorded": 0.6, "score/made_up": 1.3 / 4}
        assert {name: logs[name] for name in expected} == pytest.approx(expected)

    def test_recorded_motion_comes_first_and_shares_head_and_padding(self, tmp_path):
        trainer = trainer_of(tmp_path, [moving_clip(12, 0), moving_clip(8, 1)], mirror_probability=0.0)
        critic = Critic(torch.rand(2, 4))
        windows = batch_of(trainer, 0, 1)
        trainer.compute_loss(critic, windows)
        joints, head, mask = (values.unflatten(0, (2, 4)) for values in critic.seen[0])
        truth = trainer._truth(windows)
        assert mask.sum(-1).tolist() == [[12] * 4, [8] * 4]
        torch.testing.assert_close(joints[:, 0, :, :, 4:], truth.joints[:, :, 1:])
        assert (head == head[:, :1]).all()
        torch.testing.assert_close(head[:, 0, :, 4:], truth.head.p_world_cpf)
        assert (joints[:, 1:] - joints[:, :1]).abs().amax((-1, -2, -3)).gt(0.05).all()

    @pytest.mark.slow
    @pytest.mark.parametrize("negatives", ["rollout", "gt_noise"])
    def test_learns_to_tell_made_up_motion(self, tmp_path, negatives):
        settings = {"max_steps": 20, "learning_rate": 3e-3, "noise_scale": 0.3, "replay": 2}
        trainer = trainer_of(tmp_path, negatives=negatives, **settings)
        trainer.fit_input_statistics()
        trainer.train()
        logs = [log for log in trainer.state.log_history if "loss" in log]

        def mean(name, part):
            return sum(log[name] for log in part) / len(part)

        assert len(logs) == 20
        assert logs[0]["loss"] == pytest.approx(math.log(4), abs=0.6)  # nothing known of four motions
        assert mean("loss", logs[-8:]) < 0.3
        assert mean("accuracy", logs[-8:]) > 0.95
        assert mean("score/recorded", logs[-8:]) > mean("score/made_up", logs[-8:]) + 0.2

    def test_bfloat16_is_for_the_network_and_nothing_else(self, tmp_path, monkeypatch):
        seen, losses, inputs = [], [], []
        spy = perceptual_module.rollout
        for bf16 in (False, True):
            trainer = trainer_of(tmp_path, max_steps=2, bf16=bf16, model=tiny_perceptual_model())
            trainer.model.fuse.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
            trainer.model.embed_body.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
            monkeypatch.setattr(perceptual_module, "rollout", lambda *a, **k: losses.append(spy(*a, **k)) or losses[-1])
            trainer.train()
        assert seen == 2 * [torch.float32] + 2 * [torch.bfloat16]
        torch.testing.assert_close(inputs[2], inputs[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(losses[2].latents[-1], losses[0].latents[-1], rtol=0, atol=1e-5)

    def test_gradient_checkpointing(self, tmp_path):
        results = []
        for on in (False, True):
            trainer = trainer_of(tmp_path, max_steps=2, gradient_checkpointing=on)
            trainer.train()
            assert trainer.model.is_gradient_checkpointing == on
            results.append(weights(trainer.model))
        for name, value in results[0].items():
            torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-6, msg=name)


class TestEvaluation:
    @pytest.mark.parametrize("policies", [None, []])
    def test_same_at_every_call_and_leaves_random_numbers_alone(self, tmp_path, policies):
        settings = {"negatives": "gt_noise", "noise_scale": 0.02, "per_device_eval_batch_size": 2}
        clips = [moving_clip(12, seed) for seed in range(20, 45)]
        trainer = trainer_of(tmp_path, eval_clips=clips, policies=policies, **settings)
        asked = []
        trainer.model.register_forward_hook(lambda module, args, output: asked.append(args[0]))
        state = torch.get_rng_state()
        first = trainer.evaluate()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(77)
        assert trainer.evaluate() == first
        half = len(asked) // 2
        assert all(torch.equal(a, b) for a, b in zip(asked[:half], asked[half:], strict=True))
        # Every batch has noise of its own.
        batches = asked[1:half:2]
        assert len(batches) == 13
        assert not torch.equal(batches[0], batches[1])

    def test_training_goes_on_as_without_it(self, tmp_path):
        runs = []
        for strategy in ("no", "steps"):
            clips = [moving_clip(12, 9)]
            trainer = trainer_of(tmp_path, eval_clips=clips, max_steps=4, eval_strategy=strategy, eval_steps=1)
            trainer.train()
            runs.append(weights(trainer.model))
            logged = [log["step"] for log in trainer.state.log_history if "eval_accuracy_0" in log]
            assert logged == ([1, 2, 3, 4] if strategy == "steps" else [])
        assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())

    def test_accuracy_counts_recordings_that_score_higher(self, tmp_path):
        clips = [moving_clip(12, seed) for seed in range(5)]
        trainer = trainer_of(tmp_path, eval_clips=clips, policies=[tiny_pipeline(), tiny_pipeline(2)])
        recorded, made_up = [0.5] * 5, ([0.4, 0.5, 0.6, 0.1, 0.2], [0.7, 0.8, 0.4, 0.9, 0.5])
        answers = iter([recorded, *made_up])
        trainer.model.register_forward_hook(lambda *_: MotionPerceptualModelOutput(torch.tensor(next(answers))))
        metrics = trainer.evaluate()
        assert metrics["eval_accuracy_0"] == pytest.approx(60.0)
        assert metrics["eval_accuracy_1"] == pytest.approx(20.0)  # a draw is lost

    def test_a_made_up_motion_is_a_finished_sample(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(perceptual_module, "rollout", lambda *a, **k: kept.append(rollout(*a, **k)) or kept[-1])
        trainer = trainer_of(tmp_path, eval_clips=[moving_clip(12, 9)])
        asked = []
        trainer.model.register_forward_hook(lambda module, args, output: asked.append(args[0]))
        trainer.evaluate()
        state = MotionState.unpack(kept[0].latents[-1], trainer.policies[0].denoiser.state_layout)
        torch.testing.assert_close(asked[1][..., :4], matrix_to_wxyz(state.body_rotmats), rtol=0, atol=1e-5)


def test_input_statistics_are_those_of_recorded_windows(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.fit_input_statistics()
    expected = tiny_perceptual_model()
    joints, head = perceptual_module._recorded(truth := trainer._truth(batch_of(trainer, *range(6))))
    expected.set_input_statistics(joints, head, truth.mask)
    for name in ("joint_mean", "joint_std", "head_mean", "head_std"):
        torch.testing.assert_close(trainer.model.get_parameter(name), expected.get_parameter(name))
    assert trainer.model.joint_std.ne(1).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten steps through two and a half epochs of two batches, each used twice; a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("whole")
    settings = {
        "max_steps": 10, "save_strategy": "steps", "save_steps": 1, "replay": 2, "body_size_probability": 0.5,
        "artefact_negatives": 2, "artefact_rungs": 2, "eval_strategy": "steps", "eval_steps": 3,
    }  # fmt: skip
    clips = [moving_clip(30, seed) for seed in range(2)]  # two windows each

    def new(output: Path) -> PerceptualTrainer:
        return trainer_of(output, clips, [moving_clip(12, 9)], **settings)

    trainer = new(folder)
    trainer.fit_input_statistics()
    trainer.train()
    return trainer, folder, new


class TestCheckpoints:
    @pytest.mark.slow
    @pytest.mark.parametrize("step", [2, 4, 6])  # half-way through the first epoch, between epochs, in the second
    def test_resumed_run_equals_the_uninterrupted_one(self, whole, tmp_path, step):
        trainer, folder, new = whole
        resumed = new(tmp_path)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert resumed.state.global_step == 10
        for name, value in weights(trainer.model).items():
            torch.testing.assert_close(weights(resumed.model)[name], value, rtol=0, atol=1e-6, msg=name)
        losses = [[log["loss"] for log in x.state.log_history if "loss" in log] for x in (trainer, resumed)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)

    @pytest.mark.slow
    def test_within_the_uses_of_a_batch_it_makes_negatives_anew(self, whole, tmp_path, monkeypatch):
        _, folder, new = whole
        batches = []
        for x, output in ((new(tmp_path / "a"), None), (new(tmp_path / "b"), str(folder / "checkpoint-5"))):
            steps, made = recorded(x, monkeypatch)
            x.train(resume_from_checkpoint=output)
            batches.append((steps, made))
        (steps, _), (resumed, made) = batches
        assert all(torch.equal(a, b) for a, b in zip(steps[5:], resumed, strict=True))
        assert len(made) == 3  # for step 6, for 7 and 8, for 9 and 10
        assert all(torch.equal(a, b) for a, b in zip(made, (resumed[0], resumed[1], resumed[3]), strict=True))

    def test_they_are_diffusers_models(self, whole):
        trainer, folder, _ = whole
        loaded = MotionPerceptualModel.from_pretrained(folder / "checkpoint-10")
        for name, value in weights(trainer.model).items():
            assert torch.equal(weights(loaded)[name], value), name
        assert loaded.joint_mean.ne(0).any()


class TestConstructor:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"negatives": "noise"}, "negatives is 'noise'; choose 'rollout' or 'gt_noise'"),
            ({"num_negatives": 0}, "num_negatives is 0; it must be 1 or more"),
            ({"replay": 0}, "replay is 0; it must be 1 or more"),
            ({"last_steps": 0}, "last_steps is 0; it must be 1 or more"),
            ({"artefact_negatives": -1}, "artefact_negatives is -1; it must be 0 or more"),
            ({"artefact_negatives": 4, "artefact_rungs": 4}, "artefact_negatives is 4 of 3 negatives in all"),
            ({"artefact_negatives": 3}, "artefact_rungs 4; ladders need 2 rungs or more"),
            ({"artefact_negatives": 2, "artefact_rungs": 1}, "ladders need 2 rungs or more"),
            (
                {"artefact_negatives": 2, "artefact_rungs": 2, "per_device_train_batch_size": 1},
                "raise per_device_train_batch_size",
            ),
            ({"temperature": 0.0}, "temperature is 0.0, noise_scale 0.05; both must be above 0"),
            ({"temperature": math.nan}, "temperature is nan"),
            ({"noise_scale": -0.1}, "noise_scale -0.1; both must be above 0"),
            ({"window": 17}, "window is 17 frames, but the base policy was trained on 16"),
            ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be in 1..1000"),
            ({"eta": -0.5}, "eta is -0.5; it must be 0 or more"),
            ({"eta": 5.0}, "adds more noise"),
            ({"per_device_train_batch_size": 7}, "6 windows and a step takes 7; lower per_device_train_batch_size"),
        ],
    )
    def test_settings_are_refused(self, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            trainer_of(tmp_path, **settings)

    def test_no_policy(self, tmp_path):
        with pytest.raises(ValueError, match="needs a base policy to draw them from; pass policies"):
            trainer_of(tmp_path, policies=[])

    def test_a_scheduler_of_diffusers(self, tmp_path):
        policy = tiny_pipeline()
        policy.scheduler = DDIMScheduler.from_config(policy.scheduler.config, timestep_spacing="trailing")
        with pytest.raises(ValueError, match="has a DDIMScheduler; its rollouts need an EgoMotionSDEScheduler"):
            trainer_of(tmp_path, policies=[tiny_pipeline(), policy])

    def test_a_policy_of_another_body(self, tmp_path):
        policy = tiny_pipeline()
        policy.skeleton = replace(Skeleton.default(), name="smplh-neutral")
        with pytest.raises(ValueError, match="describes the body 'smplh-neutral', the data's betas 'mannequin-x"):
            trainer_of(tmp_path, policies=[policy])

    @pytest.mark.parametrize("changes", [{"include_hands": True}, {"rotation_representation": "6d"}])
    def test_other_state_layouts_are_read(self, tmp_path, changes):
        trainer = trainer_of(tmp_path, policies=[tiny_pipeline(**changes)], max_steps=1)
        trainer.train()
        assert trainer._contrast.made_up.shape == (3, 2, 3, 12, 21, 7)

    def test_a_stream(self, tmp_path):
        stream = StreamedWindows.__new__(StreamedWindows)
        with pytest.raises(ValueError, match="train_dataset is a stream"):
            PerceptualTrainer(
                tiny_perceptual_model(),
                PerceptualConfig(str(tmp_path), use_cpu=True, report_to="none", negatives="gt_noise"),
                stream,
            )


TWO_PROCESSES = """
import json, sys
from pathlib import Path
import torch
from tests.tiny import moving_clip
from tests.training.perceptual_setup import trainer_of, weights

folder, resume = Path(sys.argv[1]), sys.argv[2:] or [None]
clips = [moving_clip(12, seed) for seed in range(8)]
trainer = trainer_of(folder / "run", clips, max_steps=10, replay=2, save_strategy="steps", save_steps=6)
rank, loss = trainer.accelerator.process_index, trainer.compute_loss
seen = {"steps": [], "noise": [], "resumed": resume[0]}
number = {tuple(clip.motion.betas.tolist()): i for i, clip in enumerate(clips)}

def watch(model, inputs, **options):
    value = loss(model, inputs, **options)
    seen["steps"].append([number[tuple(row.tolist())] for row in inputs["betas"]])
    seen["noise"].append(float(trainer._contrast.made_up[0, 0, 0, 0, 0, 0]))
    return value

trainer.compute_loss = watch
trainer.train(resume_from_checkpoint=resume[0])
seen["weights"] = sum(float(value.double().abs().sum()) for value in weights(trainer.diffusers_model).values())
(folder / f"{'resumed' if resume[0] else 'whole'}{rank}.json").write_text(json.dumps(seen))
"""


@pytest.mark.slow
def test_two_processes_share_the_batch(tmp_path):
    """Each has its own half at every step, uses it as often as asked, and is resumed where it was."""
    script = tmp_path / "worker.py"
    script.write_text(TWO_PROCESSES)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    for arguments in ([tmp_path], [tmp_path, tmp_path / "run" / "checkpoint-6"]):
        done = subprocess.run([*command, *map(str, arguments)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    runs = [
        [json.loads((tmp_path / f"{name}{rank}.json").read_text()) for rank in (0, 1)] for name in ("whole", "resumed")
    ]
    (first, second), resumed = runs
    for ours, theirs in zip(first["steps"], second["steps"], strict=True):
        assert not set(ours) & set(theirs)
    for process in (first, second):
        assert all(process["steps"][i] == process["steps"][i + 1] for i in range(0, 10, 2))
    # Two blocks of four windows are an epoch of eight.
    for start in (0, 4):
        met = first["steps"][start] + second["steps"][start] + first["steps"][start + 2] + second["steps"][start + 2]
        assert sorted(met) == list(range(8))
    assert first["steps"][:4] != first["steps"][4:8]
    # Other noise on every process, one model.
    assert not set(first["noise"]) & set(second["noise"])
    assert first["weights"] == second["weights"]
    for process, again in zip((first, second), resumed, strict=True):
        assert again["steps"] == process["steps"][6:]
        assert again["noise"] == pytest.approx(process["noise"][6:], abs=1e-5)
        assert again["weights"] == pytest.approx(process["weights"], rel=1e-6)
