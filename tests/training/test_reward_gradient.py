"""The exact gradient of rewards: whole runs, which steps are learned from, and gradients that are always finite."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import roma
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import MotionWindows
from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.rewards import REWARDS, RewardInputs, VisualReward, check_differentiable, score_with_gradient
from motion_grpo.training import RewardGradientTrainer, newest_checkpoint
from tests.tiny import moving_clip, tiny_denoiser, tiny_perceptual_model
from tests.training.gradient_setup import config, trainer
from tests.training.grpo.setup import WINDOW, logged, pipeline, weights, windows

ROOT = Path(__file__).parents[2]
# ---- whole runs


def test_a_run_logs_evaluates_and_saves(tmp_path):
    run = trainer(tmp_path, eval_clips=[moving_clip(30, 9)], eval_strategy="steps", eval_steps=2.0, ema_decay=0.5)
    before = weights(run)
    run.train()
    assert not torch.equal(weights(run), before)
    for name in run.rewards:
        assert all(0 < value <= 1 for value in logged(run, f"rewards/{name}/mean"))
        assert len(logged(run, f"rewards/{name}/std")) == 2
    assert logged(run, "skipped_updates") == [0.0, 0.0]
    assert all(math.isfinite(value) for value in logged(run, "grad_norm"))
    assert [entry["step"] for entry in run.state.log_history if "eval_mpjpe" in entry] == [0, 2]
    run.save_pipeline(tmp_path / "pipeline")
    saved = EgoMotionPipeline.from_pretrained(tmp_path / "pipeline")
    with run.averaged():
        for name, value in run.denoiser.state_dict().items():
            assert torch.equal(saved.denoiser.state_dict()[name], value), name


@pytest.mark.parametrize("normalization", ["none", "std"])
def test_it_climbs(tmp_path, normalization):
    """Always the same windows, whose rewards then rise."""
    changes = {"max_steps": 12, "learning_rate": 3e-3, "reward_normalization": normalization, "max_grad_norm": 0.0}
    run = trainer(tmp_path, data=windows(2), num_train_epochs=20.0, **changes)
    run.train()
    values = logged(run, "reward")
    assert sum(values[-3:]) > sum(values[:3]) + 0.05


def test_a_gradient_is_that_of_the_rewards(tmp_path):
    """Against a difference of the rewards along the gradient, noise and conditions being the same."""
    run = trainer(tmp_path, reward_normalization="none", backprop_steps=2, reward_weights=[1.0, 2.0, 0.5, 1.0])
    numbers = [0, 3, 5, 7]
    inputs = {"condition": torch.tensor(numbers)}
    run.compute_loss(run.policy, inputs).backward()
    parameters = run.policy.trained_parameters()
    gradients = [p.grad.clone() for p in parameters]
    length = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    step, losses = 2e-3 / length, []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += sign * step * gradient
            losses.append(float(run.compute_loss(run.policy, inputs)))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(length**2, rel=0.02)


@pytest.mark.parametrize("lora_r", [0, 2])
def test_a_resumed_run_goes_on_as_it_would_have(tmp_path, lora_r):
    """Also across an epoch: 12 windows, 4 conditions an update, make 3 updates an epoch."""
    changes = {"save_strategy": "steps", "save_steps": 2.0, "max_steps": 5, "ema_decay": 0.9, "lora_r": lora_r}
    whole = trainer(tmp_path, **changes)
    whole.train()
    for checkpoint in tmp_path.glob("checkpoint-[!2]"):
        checkpoint.rename(tmp_path / f"old-{checkpoint.name}")
    resumed = trainer(tmp_path, **changes)
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)
    assert logged(resumed, "reward") == pytest.approx(logged(whole, "reward"), abs=1e-5)
    with resumed.averaged(), whole.averaged():
        torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)


def test_only_chosen_weights_are_trained(tmp_path):
    run = trainer(tmp_path, trainable=["*", "!latent_from_cond.*"])
    before = {name: value.clone() for name, value in run.denoiser.state_dict().items()}
    run.train()
    same = {name for name, value in run.denoiser.state_dict().items() if torch.equal(value, before[name])}
    assert {"latent_from_cond.weight", "latent_from_cond.bias"} <= same
    assert len(same) < len(before) / 2


# ---- which steps


@pytest.mark.parametrize(
    ("changes", "graded", "levels"),
    [
        ({}, 1, [True]),
        ({"backprop_steps": 3}, 1, [True]),
        ({"backprop_steps": 2, "backprop": "steps"}, 2, [False, True]),
    ],
)
def test_what_is_rewarded(tmp_path, changes, graded, levels):
    """The finished motion, or what each of the last K steps predicts; the last of these is the finished motion."""
    run = trainer(tmp_path, num_sampling_steps=4, **changes)
    numbers = [1, 2]
    found = run.sample(run.policy, run.conditions(numbers), numbers)
    assert len(found) == graded
    finished = trainer(tmp_path, num_sampling_steps=4).sample(run.policy, run.conditions(numbers), numbers)[0]
    assert [torch.allclose(state, finished, atol=1e-6) for state in found] == levels


class Scaled(torch.nn.Module):
    """Half of the noisy state, at every level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, latents, level, cond, mask, rows) -> torch.Tensor:
        return self.scale * latents


def test_a_chain_reaches_the_steps_before_and_single_steps_do_not(tmp_path):
    """By a network whose answer at the last level is the noisy state itself, times a number that all levels share."""
    run = trainer(tmp_path, num_sampling_steps=3, backprop_steps=3, eta=0.0)
    network = Scaled()
    scale = network.scale

    numbers = [1]
    truth = run.conditions(numbers)
    (chain,) = run.sample(network, truth, numbers)
    run.args.backprop = "steps"
    single = run.sample(network, truth, numbers)[-1]
    torch.testing.assert_close(chain, single)
    through, alone = (torch.autograd.grad(x.sum(), scale, retain_graph=True)[0] for x in (chain, single))
    assert float(alone) == pytest.approx(float(single.sum()) / 0.5, rel=1e-4)
    assert abs(float(through) - float(alone)) > 0.1 * abs(float(alone))


# ---- gradients that are finite


def garbled(generator: torch.Generator, kind: str, layout: StateLayout, truth: MotionState) -> torch.Tensor:
    packed = truth.pack(layout)
    if kind == "equal":
        return packed
    if kind == "zero":
        return torch.zeros_like(packed)
    if kind == "noise":
        return torch.randn(packed.shape, generator=generator)
    turned = {"half turn": math.pi, "tiny": 1e-6, "opposite": math.pi - 1e-6}[kind]
    axis = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
    turn = roma.rotvec_to_rotmat(turned * axis)
    return truth._replace(body_rotmats=truth.body_rotmats @ turn).pack(layout)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["equal", "zero", "noise", "half turn", "tiny", "opposite"]),
    rotations=st.sampled_from(["6d", "matrix"]),
    frames=st.integers(4, 16),
    seed=st.integers(0, 10**6),
)
def test_no_motion_has_a_gradient_that_is_not_finite(finite, kind, rotations, frames, seed):
    """Of any built-in reward, for a clip that fills the window or not, whatever lies in frames that do not exist."""
    run = finite[rotations]
    layout, truth = run.denoiser.state_layout, run.conditions([0])
    mask = torch.arange(WINDOW)[None] < frames
    truth = truth._replace(mask=mask)
    state = garbled(torch.Generator().manual_seed(seed), kind, layout, truth.state)
    state = torch.where(mask[..., None], state, float("nan")).requires_grad_()
    (gradient,) = torch.autograd.grad(run._loss(state, truth), state)
    assert gradient.isfinite().all()
    assert gradient[~mask].abs().sum() == 0
    if kind == "noise":
        assert gradient.abs().max() > 0


@pytest.fixture(scope="module")
def finite(tmp_path_factory) -> dict[str, RewardGradientTrainer]:
    """Trainers of either representation, with every built-in reward."""
    torch.manual_seed(0)
    rewards = {**REWARDS, "visual": VisualReward(tiny_perceptual_model().requires_grad_(False).eval())}
    return {
        rotations: trainer(
            tmp_path_factory.mktemp(rotations), base=pipeline(rotation_representation=rotations),
            rewards_by_name=rewards, reward_normalization="none",
        )
        for rotations in ("6d", "matrix")
    }  # fmt: skip


def test_clips_shorter_than_the_window(tmp_path):
    short = MotionWindows([moving_clip(frames, frames) for frames in (4, 5, 7, 9)], WINDOW, seed=0)
    run = trainer(tmp_path, data=short, num_train_epochs=3.0, max_steps=3)
    run.train()
    assert logged(run, "skipped_updates") == [0.0] * 3
    assert weights(run).isfinite().all()


def test_an_update_that_is_not_finite_is_skipped_and_counted(tmp_path):
    """A user's reward whose gradient is NaN where its value is not."""

    def rooted(inputs: RewardInputs) -> torch.Tensor:
        return (inputs.contacts - inputs.contacts.detach()).sum((1, 2)).abs().sqrt()

    run = trainer(tmp_path, rewards_by_name={"rooted": rooted}, reward_normalization="none")
    before = weights(run)
    run.train()
    assert logged(run, "skipped_updates") == [1.0, 2.0]
    assert torch.equal(weights(run), before)


# ---- what is refused


def steps_survived(inputs: RewardInputs) -> torch.Tensor:
    return (inputs.joints[..., 2].amin((1, 2)) > -0.1).float()


def test_a_reward_without_gradient_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"The reward 'steps_survived' has no gradient .* post-train by GRPO"):
        trainer(tmp_path, rewards=["position", f"{__name__}:steps_survived"])


def test_built_in_rewards_have_one(finite):
    run = finite["6d"]
    truth = run.conditions([0])
    check_differentiable(run.rewards, run.reward_inputs(truth.state, truth))
    values = score_with_gradient(run.rewards, run.reward_inputs(truth.state, truth))
    assert values.keys() == run.rewards.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backprop_steps": 4}, "backprop_steps is 4, but a rollout has 3 steps; set it to 1 up to"),
        ({"backprop_steps": 0}, "backprop_steps is 0, but a rollout has 3 steps"),
        ({"num_sampling_steps": 0}, "num_sampling_steps is 0"),
        ({"backprop": "all"}, "backprop is 'all'; choose one of chain, steps"),
        ({"reward_normalization": "max"}, "reward_normalization is 'max'; choose one of none, std"),
        ({"eta": -0.5}, "eta is -0.5"),
        ({"lora_r": 2, "trainable": ["decoders.*"]}, r"trainable is \['decoders.\*'\], but with lora_r 2"),
        ({"reward_omegas": {"position": 0.0}}, "reward_omegas has 0.0 for 'position'"),
    ],
)
def test_settings_without_a_meaning(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="has 2 windows with a recorded body, and a rollout needs 4 conditions"):
        trainer(tmp_path, data=windows(1))
    with pytest.raises(ValueError, match=r"trainable has 'head\.\*', which matches no weight"):
        trainer(tmp_path, trainable=["head.*"])
    base = EgoMotionPipeline(tiny_denoiser(), DDIMScheduler.from_config(pipeline().scheduler.config), 3, WINDOW, 4)
    with pytest.raises(ValueError, match="has a DDIMScheduler; post-training needs"):
        trainer(tmp_path, base=base)


# ---- processes


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    found = []
    for processes, per_device, accumulation in ((1, 6, 1), (2, 3, 1)):
        result = tmp_path / f"{processes}.pt"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
            str(Path(__file__).with_name("policy_processes.py")), "reward_gradient", str(tmp_path / f"run{processes}"),
            str(result), str(per_device), str(accumulation),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(result, weights_only=True))
    one, two = found
    assert (one["processes"], two["processes"]) == (1, 2)
    torch.testing.assert_close(two["logged"], one["logged"], rtol=0, atol=1e-5)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=0, atol=1e-5)
