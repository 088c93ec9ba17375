"""The GRPO trainer: whole runs, rollouts, updates, and the pitfalls of public implementations."""

import math
import shutil
from collections.abc import Callable

import pytest
import torch
from huggingface_hub import ModelCard

from motion_grpo import EgoMotionPipeline
from motion_grpo.motion import MotionState
from motion_grpo.rewards import RewardInputs
from motion_grpo.training import MotionGRPOTrainer, newest_checkpoint
from motion_grpo.training.grpo.objective import normalize_in_groups
from tests.tiny import moving_clip, moving_motion, tiny_perceptual_model, write_shard
from tests.training.grpo.rollouts import experience, watch_rollouts
from tests.training.grpo.setup import logged, pipeline, trainer, weights


def gradients(run: MotionGRPOTrainer) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in run.policy.trained_parameters() if p.grad is not None])
    run.policy.zero_grad()
    return found


def test_a_run_logs_evaluates_and_saves(tmp_path):
    run = trainer(tmp_path, eval_clips=[moving_clip(30, 9)], eval_strategy="steps", eval_steps=2.0)
    before = weights(run)
    run.train()
    assert not torch.equal(weights(run), before)
    for name in run.rewards:
        assert all(0 < value <= 1 for value in logged(run, f"rewards/{name}/mean"))
        assert len(logged(run, f"rewards/{name}/std")) == len(logged(run, f"frac_reward_zero_std/{name}")) == 2
    for name in (
        "reward", "reward_std", "advantages/std", "frac_reward_zero_std", "diversity", "ratio/mean", "ratio/std",
        "clip_fraction", "ratio/first_error", "rollout_seconds", "reward_seconds", "update_seconds", "grad_norm",
    ):  # fmt: skip
        assert len(logged(run, name)) == 2, name
        assert all(math.isfinite(value) for value in logged(run, name)), name
    assert [entry["step"] for entry in run.state.log_history if "eval_mpjpe" in entry] == [0, 2]
    assert len(logged(run, "eval_jitter")) == 2
    run.save_pipeline(tmp_path / "pipeline")
    saved = EgoMotionPipeline.from_pretrained(tmp_path / "pipeline")
    for name, value in run.denoiser.state_dict().items():
        assert torch.equal(saved.denoiser.state_dict()[name], value), name
    assert saved.config.num_inference_steps == 3
    assert saved.scheduler.config.eta == 1.0


def test_averages_of_what_is_logged(tmp_path):
    """With logging_steps 2, what two updates of two rollouts would have logged one by one; one sample a pass."""
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_steps": 4, "num_iterations": 2}
    one, two = trainer(tmp_path, **settings), trainer(tmp_path, **settings | {"logging_steps": 2.0})
    one.train()
    two.train()
    for name in ("reward", "diversity", "rewards/position/std", "advantages/std", "ratio/first_error"):
        # A rollout serves two updates and is logged with the first.
        assert len(logged(one, name)) == len(logged(two, name)) == 2
        assert logged(two, name) == pytest.approx(logged(one, name), abs=1e-6), name
    for name in ("ratio/mean", "clip_fraction", "loss"):
        singles = logged(one, name)
        assert logged(two, name) == pytest.approx([sum(singles[:2]) / 2, sum(singles[2:]) / 2], abs=1e-6), name
    # A batch of one sample has a spread of 0, not of NaN.
    assert logged(one, "ratio/std") == [0.0] * 4


@pytest.mark.parametrize("credit", ["sequence", "frame"])
def test_a_perceptual_model_is_a_reward(tmp_path, credit):
    torch.manual_seed(3)
    tiny_perceptual_model().save_pretrained(tmp_path / "critic")
    run = trainer(
        tmp_path, rewards=["visual"], perceptual_model=str(tmp_path / "critic"), credit=credit, group_std_floor=1e-9,
        learning_rate=1e-3,
    )  # fmt: skip
    before, critic = weights(run), run.rewards["visual"].model
    judge = [p.clone() for p in critic.parameters()]
    part = experience(run)
    # Exp(s) of a score in (0, 1), the same in every frame.
    state = MotionState.unpack(part.latents[-1], run.denoiser.state_layout)
    values = run.rewards["visual"](run.reward_inputs(state, run.conditions([3, 5]), [0] * 4 + [1] * 4))
    assert ((values > 1) & (values < math.e)).all()
    expected, _ = normalize_in_groups(values, 4, 1e-9)
    if credit == "frame":
        expected = expected[:, None].expand(8, 16)
    torch.testing.assert_close(part.advantages, expected, rtol=1e-2, atol=1e-2)
    assert part.advantages.abs().max() > 0.5
    run._metrics["train"].clear()
    run._step, run._buffered_inputs = 0, None
    run.train()
    assert all(1 < value < math.e for value in logged(run, "rewards/visual/mean"))
    assert max(logged(run, "ratio/first_error")) < 1e-6
    assert not torch.equal(weights(run), before)
    assert all(torch.equal(a, b) for a, b in zip(critic.parameters(), judge, strict=True))


def test_a_run_has_a_card(tmp_path):
    """Once somebody said what it was trained on; checkpoints need none."""
    pipeline().save_pretrained(tmp_path / "tiny_base")
    base = EgoMotionPipeline.from_pretrained(tmp_path / "tiny_base")
    run = trainer(tmp_path / "run", base=base, save_strategy="steps", save_steps=1.0)
    run.train()
    assert newest_checkpoint(tmp_path / "run").endswith("checkpoint-2")
    assert not (tmp_path / "run" / "README.md").exists()
    with pytest.raises(ValueError, match="data"):
        run.create_model_card()
    (tmp_path / "pack").mkdir()
    write_shard(tmp_path / "pack", "cmu", "train", [moving_motion(20)])
    run.create_model_card(model_name="walker", dataset_name=str(tmp_path / "pack"), tags="mine", license="unused")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert {"grpo", "mine"} <= set(card.data.tags)
    assert "Post-trained from **tiny_base**" in card.text
    assert "Groups of 4 samples (G), 3 sampling steps (n)" in card.text
    assert "| velocity | 1.0 |" in card.text
    assert (tmp_path / "run" / "training_curves.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"ema_decay": 0.9}, {"lora_r": 2, "beta": 0.1, "ema_decay": 0.9}])
def test_a_resumed_run_goes_on_as_it_would_have(tmp_path, settings):
    """Also across an epoch: 6 clips of 2 windows, 2 conditions a rollout, make 6 steps an epoch."""
    settings = settings | {"save_strategy": "steps", "save_steps": 2.0, "max_steps": 8}
    whole = trainer(tmp_path / "whole", **settings)
    whole.train()
    for stop in (2, 6):
        folder = tmp_path / f"stopped{stop}"
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", folder / f"checkpoint-{stop}")
        # The weights come from the checkpoint; under an adapter those below it do not.
        resumed = trainer(folder, base=pipeline(seed=0 if settings.get("lora_r") else 5), **settings)
        resumed.train(resume_from_checkpoint=newest_checkpoint(folder))
        torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)
        assert logged(resumed, "reward") == pytest.approx(logged(whole, "reward"), abs=1e-5)
        with resumed.averaged(), whole.averaged():
            torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)


def test_a_resume_within_a_rollout_draws_it_again(tmp_path):
    """Two updates a rollout: the resumed run sees the same conditions and noise, under the present weights."""
    settings = {"num_iterations": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 1.0}
    whole = trainer(tmp_path, **settings)
    seen = watch_rollouts(whole)
    whole.train()
    assert len(seen) == 2
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trainer(tmp_path, **settings)
    again = watch_rollouts(resumed)
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    assert len(again) == 1
    assert torch.equal(again[0].latents[0], seen[1].latents[0])
    assert torch.equal(again[0].cond, seen[1].cond)
    assert not torch.equal(again[0].latents[1], seen[1].latents[1])


def test_the_best_checkpoint_comes_back_at_the_end(tmp_path):
    run = trainer(
        tmp_path, eval_clips=[moving_clip(20, 9)], eval_strategy="steps", eval_steps=1.0, save_strategy="steps",
        save_steps=1.0, load_best_model_at_end=True, metric_for_best_model="mpjpe", greater_is_better=False,
        max_steps=3,
    )  # fmt: skip
    run.train()
    values = logged(run, "eval_mpjpe")
    best = values.index(min(values[1:]))  # the first is of step 0, which has no checkpoint
    assert run.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    assert run.evaluate()["eval_mpjpe"] == pytest.approx(min(values[1:]), rel=1e-5)


def test_a_recorded_motion_earns_every_reward_in_full(tmp_path):
    """Truth and sample go through the same kinematics."""
    run = trainer(tmp_path)
    truth = run.conditions([3, 5])
    inputs = run.reward_inputs(truth.state, truth, [0, 1])
    for name, reward in run.rewards.items():
        torch.testing.assert_close(reward(inputs), torch.ones(2), rtol=0, atol=1e-4, msg=name)


def test_equal_rewards_change_nothing(tmp_path):
    """A std of 0, and one of rounding errors."""
    noise = 1e-6 * torch.rand(8)
    run = trainer(tmp_path, rewards_by_name={"same": lambda inputs: 0.7 + noise})
    before = weights(run)
    run.train()
    assert torch.equal(weights(run), before)
    assert logged(run, "frac_reward_zero_std/same") == [1.0, 1.0]
    assert logged(run, "grad_norm") == [0.0, 0.0]


@pytest.mark.parametrize("credit", ["sequence", "frame", "joint"])
def test_steps_and_batches_add_up_to_the_whole_gradient(tmp_path, credit):
    """Transition by transition and two samples at a time, against one graph over everything."""
    run = trainer(
        tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, credit=credit, beta=0.1,
        step_weights="even", exploration="smooth_credit", last_step_std=0.1, num_iterations=2, epsilon=0.2,
    )  # fmt: skip
    whole = experience(run)
    with torch.no_grad():  # as if an update had been made: ratios other than 1, KL other than 0
        for parameter in run.policy.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
    sum(run._transition_loss(run.policy, whole, place)[0] for place in range(len(whole.trained))).backward()
    expected = gradients(run)
    run.current_gradient_accumulation_steps = 4
    run._buffered_inputs = [whole.part(start, start + 2) for start in range(0, 8, 2)]
    for step in range(4):
        run._step = 4 + step  # the second pass over the rollout: nothing is drawn
        run.training_step(run.policy, {})
    torch.testing.assert_close(gradients(run), expected, rtol=1e-4, atol=1e-8 + 1e-5 * float(expected.abs().max()))


def test_memory_does_not_grow_with_the_steps(tmp_path):
    """No more than one transition's graph is alive at any time: saved tensors are freed before the next forward."""
    peaks = []
    for steps in (3, 9):
        run = trainer(tmp_path, num_sampling_steps=steps)
        run._buffered_inputs = [experience(run)]
        run.current_gradient_accumulation_steps = 1
        run._step = 1
        run._prepare_inputs = lambda inputs, run=run: run._buffered_inputs[0]
        alive, peak = 0, 0

        def pack(x: torch.Tensor) -> "Held":
            return Held(x, count)

        def count(change: int) -> None:
            nonlocal alive, peak
            alive += change
            peak = max(peak, alive)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.value):
            run.training_step(run.policy, {})
        peaks.append(peak)
    assert peaks[0] > 100
    assert peaks[1] <= peaks[0]


class Held:
    """A tensor that autograd keeps, counted while it lives."""

    def __init__(self, value: torch.Tensor, count: Callable[[int], None]) -> None:
        self.value, self.count = value, count
        count(1)

    def __del__(self) -> None:
        self.count(-1)


def test_checkpointed_activations_give_the_same_gradient(tmp_path):
    found = []
    for gradient_checkpointing in (False, True):
        run = trainer(tmp_path, gradient_checkpointing=gradient_checkpointing, max_steps=1)
        run.train()
        assert run.denoiser.gradient_checkpointing is gradient_checkpointing
        found.append(weights(run))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("lora_r", "bf16"), [(0, False), (0, True), (2, False), (2, True)])
def test_kl_is_to_the_base(tmp_path, lora_r, bf16):
    """And is 0 at first: the reference rounds as the policy does."""
    run = trainer(tmp_path, beta=0.5, lora_r=lora_r, bf16=bf16, learning_rate=1e-2, max_steps=3)
    run.train()
    kl = logged(run, "kl")
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert kl[2] > 1e-7


@pytest.mark.slow
def test_kl_holds_the_policy_back(tmp_path):
    def distance(beta: float) -> float:
        run = trainer(tmp_path, beta=beta, learning_rate=1e-3, max_steps=3)
        before = weights(run)
        run.train()
        return float((weights(run) - before).norm())

    assert distance(1e6) < distance(0.0)


def test_an_adapter_leaves_the_base_alone_and_merges(tmp_path):
    run = trainer(tmp_path, lora_r=2, learning_rate=1e-2)
    frozen = {name: p.detach().clone() for name, p in run.policy.named_parameters() if not p.requires_grad}
    trained = sum(p.numel() for p in run.policy.trained_parameters())
    assert 0 < trained < sum(p.numel() for p in frozen.values())
    run.train()
    for name, value in frozen.items():
        assert torch.equal(dict(run.policy.named_parameters())[name], value), name
    merged = run.policy.merged()
    part = experience(run)
    inputs = (part.latents[0], torch.full((2,), 1000), part.cond, part.mask)
    adapted = run.denoiser(*inputs).sample
    torch.testing.assert_close(merged(*inputs).sample, adapted, rtol=1e-4, atol=1e-5)
    with run.policy.without_adapter():
        assert (run.denoiser(*inputs).sample - adapted).abs().max() > 1e-4
    run.save_pipeline(tmp_path / "pipeline")
    saved = EgoMotionPipeline.from_pretrained(tmp_path / "pipeline").denoiser
    torch.testing.assert_close(saved(*inputs).sample, adapted, rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_evaluated_and_shipped(tmp_path):
    run = trainer(tmp_path, ema_decay=0.5, learning_rate=1e-2, max_steps=3)
    run.train()
    last = weights(run)
    with run.averaged():
        averaged = weights(run)
    assert torch.equal(weights(run), last)
    assert (averaged - last).abs().max() > 1e-3
    run.save_pipeline(tmp_path / "pipeline")
    saved = EgoMotionPipeline.from_pretrained(tmp_path / "pipeline").denoiser
    assert torch.equal(torch.cat([p.detach().flatten() for p in saved.parameters()]), averaged)


@pytest.mark.slow
def test_learning_raises_a_reward_that_can_be_learned(tmp_path):
    """Contacts are outputs that anything can move. The last step has to be trained too: in a random network what the
    other steps learn need not be good for the one that makes the output."""

    def contacts(inputs: RewardInputs) -> torch.Tensor:
        return inputs.contacts.mean((1, 2))

    run = trainer(tmp_path, rewards_by_name={"contacts": contacts}, max_steps=12, learning_rate=3e-3, last_step_std=0.1)
    run.train()
    values = logged(run, "rewards/contacts/mean")
    assert sum(values[-3:]) / 3 > sum(values[:3]) / 3 + 0.01


def test_rewards_count_by_their_weights(tmp_path):
    up, down = (lambda inputs: inputs.contacts.mean((1, 2))), (lambda inputs: -inputs.contacts.mean((1, 2)))
    both = {"up": up, "down": down}

    def found(*weights: float) -> torch.Tensor:
        run = trainer(tmp_path, rewards_by_name=both, aggregation="sum")
        run.reward_weights = list(weights)
        return experience(run).advantages

    torch.testing.assert_close(found(1.0, 1.0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(found(1.0, 3.0), -2 * found(1.0, 0.0), rtol=1e-4, atol=1e-5)
    assert found(1.0, 0.0).abs().max() > 0.1


@pytest.mark.parametrize(("credit", "parts"), [("frame", (16,)), ("joint", (16, 22))])
def test_frames_and_joints_have_advantages_of_their_own(tmp_path, credit, parts):
    part = experience(trainer(tmp_path, credit=credit, reward_smooth_frames=3))
    assert part.advantages.shape == part.log_probs[0].shape == (8, *parts)
    grouped = part.advantages.unflatten(0, (2, 4))
    torch.testing.assert_close(grouped.mean(1), torch.zeros(2, *parts), rtol=0, atol=1e-3)
    assert grouped.std(dim=2).max() > 0.05
