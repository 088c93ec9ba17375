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
from motion_grpo.training.grpo.experience import Experience, Groups, draw
from motion_grpo.training.grpo.objective import normalize_in_groups
from tests.tiny import moving_clip, moving_motion, tiny_perceptual_model, write_shard
from tests.training.grpo.setup import logged, pipeline, trainer, weights

NUMBERS = [3, 3, 3, 3, 5, 5, 5, 5]


def experience(run: MotionGRPOTrainer, generation: int = 0) -> Experience:
    """The samples of one rollout of two conditions, scored."""
    run._step = generation * run.args.steps_per_generation * run.num_iterations
    return run._generate_and_score_completions({"condition": torch.tensor(NUMBERS)})


def gradients(run: MotionGRPOTrainer) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in run.policy.trained_parameters() if p.grad is not None])
    run.policy.zero_grad()
    return found


# ---- whole runs


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
    values = run.rewards["visual"](run._reward_inputs(state, run.conditions([3, 5]), [0] * 4 + [1] * 4))
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


def watch_rollouts(run: MotionGRPOTrainer) -> list[Experience]:
    seen: list[Experience] = []
    original = run._generate_and_score_completions

    def watched(inputs: dict) -> Experience:
        seen.append(original(inputs))
        return seen[-1]

    run._generate_and_score_completions = watched
    return seen


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


# ---- the ratio


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ({}, {}),
        ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
        (
            {"dropout_p": 0.5},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "credit": "frame",
             "exploration": "smooth", "last_step_std": 0.1},
        ),
        (
            {"noise_conditioning": "token", "noise_in_encoder": True},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "head_noise_per_sample": True},
        ),
    ],
)  # fmt: skip
def test_the_first_ratio_is_one(tmp_path, network, settings):
    """Whatever dropout, and however the rollout is divided into batches of the update."""
    run = trainer(tmp_path, base=pipeline(**network), **settings)
    run.train()
    assert max(logged(run, "ratio/first_error")) < 1e-6
    assert not run.denoiser.training


def test_the_first_ratio_of_summed_densities_is_one(tmp_path):
    run = trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, log_prob_reduction="sum")
    run.train()
    assert max(logged(run, "ratio/first_error")) < 1e-3
    assert experience(run).log_probs[0].dtype == torch.float64


def test_later_updates_of_a_rollout_move_the_ratio_and_are_clipped(tmp_path):
    run = trainer(tmp_path, num_iterations=3, max_steps=6, epsilon=1e-5)
    seen = watch_rollouts(run)
    run.train()
    assert len(seen) == 2
    # The log of step 1 belongs to the rollout's own policy, those of 2 and 3 to another.
    spread, clipped = logged(run, "ratio/std"), logged(run, "clip_fraction")
    assert spread[0] < 1e-6
    assert min(spread[1:3]) > 1e-5
    assert clipped[0] == 0
    assert clipped[2] > 0.2


def test_densities_stay_float32_under_bfloat16(tmp_path):
    run = trainer(tmp_path, bf16=True, max_steps=1)
    run.train()
    part = experience(run)
    latents = part.latents[0][part.rows]
    clean = run.model_wrapped(latents, part.transitions[0].level, part.cond, part.mask, part.rows)
    run.accelerator.native_amp = False
    exact = run.policy.denoiser(latents, torch.full((8,), 1000), part.cond[part.rows], part.mask[part.rows]).sample
    # The forward pass is bfloat16 indeed ...
    assert (clean - exact).abs().mean() > 1e-5
    # ... and what follows is exact to float32.
    mean = part.transitions[0].clean_weight * clean.double() + part.transitions[0].latent_weight * latents.double()
    residual = (part.latents[1].double() - mean) / part.transitions[0].std
    torch.testing.assert_close(part.log_probs[0].double(), -0.5 * residual.square().mean((1, 2)), rtol=0, atol=1e-5)


# ---- which steps


def test_the_deterministic_last_step_is_not_trained(tmp_path):
    run = trainer(tmp_path)
    part = experience(run)
    assert part.trained == [0, 1]
    assert [step.std > 0 for step in part.transitions] == [True, True, False]
    assert len(part.log_probs) == 2


def test_smooth_noise_on_the_last_step_makes_it_trainable(tmp_path):
    run = trainer(tmp_path, last_step_std=0.2, head_noise=0.0, num_generations=8, eta=1e-3)
    run._step = 0
    part = run._generate_and_score_completions({"condition": torch.tensor([3] * 8)})
    assert part.trained == [0, 1, 2]
    clean = run.model_wrapped(part.latents[2], part.transitions[2].level, part.cond, part.mask, part.rows)
    noise = part.latents[3] - clean
    assert float(noise.std()) == pytest.approx(0.2, rel=0.1)
    basis = part.basis[0]
    torch.testing.assert_close(basis @ (basis.T @ noise), noise, rtol=0, atol=1e-5)
    # The mean over the coordinates of a standard normal's square is 1.
    assert float(part.log_probs[2].mean()) == pytest.approx(-0.5, rel=0.1)


def test_only_steps_of_the_window_are_stochastic(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=4, sde_window_size=1, sde_window_start=1)
    part = experience(run)
    assert part.trained == [1]
    # Up to there a group is in one state.
    assert [len(x) for x in part.latents] == [2, 2, 8, 8, 8]
    assert not torch.equal(part.latents[2][0], part.latents[2][1])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_outside_the_window_are_those_of_the_pipelines_sampler(tmp_path, eta):
    """Noise that they draw is the group's: its members differ by the window alone."""
    base = pipeline()
    base.scheduler.register_to_config(eta=eta)
    run = trainer(tmp_path, base=base, num_sampling_steps=4, sde_window_size=1, sde_window_start=1, head_noise=0.0)
    part = experience(run)
    assert [step.std > 0 for step in part.transitions] == [eta > 0, True, eta > 0, False]
    before, after = (part.latents[number + 1] - part.mean(run.policy, number) for number in (0, 2))
    torch.testing.assert_close(after[:4], after[:1].expand(4, -1, -1), rtol=0, atol=1e-5)
    for noise, number in ((before, 0), (after, 2)):
        assert float(noise.std()) == pytest.approx(part.transitions[number].std, rel=0.1, abs=1e-6)
    assert part.trained == [1]


def test_the_last_step_alone_can_explore(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=4, sde_window_size=0, last_step_std=0.1, exploration_components=16)
    part = experience(run)
    assert part.explored == part.trained == [3]
    assert [len(x) for x in part.latents] == [2, 2, 2, 2, 8]
    assert part.advantages.abs().max() > 0.1


@pytest.mark.parametrize("credit", ["sequence", "frame", "joint"])
def test_betas_can_be_left_out_of_the_density(tmp_path, credit):
    """What they are changes neither density nor KL; what the rest of the state is does."""
    run = trainer(tmp_path, credit=credit, train_betas=False, last_step_std=0.1, beta=0.1)
    part = experience(run)
    betas = slice(0, run.denoiser.state_layout.sizes["betas"])
    mean = part.mean(run.policy, 2).detach().requires_grad_()
    part.log_density(2, part.latents[3], mean).sum().backward()
    assert mean.grad[..., betas].abs().max() == 0
    assert mean.grad[..., betas.stop :].abs().mean() > 0
    moved = mean.detach().clone()
    moved[..., betas] += 1.0
    assert float(part.kl(2, moved, mean.detach()).abs().max()) == 0
    moved[..., betas.stop] += 1.0
    assert float(part.kl(2, moved, mean.detach()).min()) > 0


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [2, 8, 8]),
        ({"sde_window_size": 1, "sde_window_start": 1}, [2, 2, 8]),
        ({"sde_window_size": 0, "last_step_std": 0.1}, [2, 2, 2]),
        ({"head_noise_per_sample": True}, [8, 8, 8]),
    ],
)
def test_what_a_group_shares_is_asked_of_the_network_once(tmp_path, settings, asked):
    run = trainer(tmp_path, **settings)
    calls: list[int] = []
    run.policy.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    part = experience(run)
    assert calls == asked
    for number in range(part.fork, 3):
        mean, step = part.mean(run.policy, number), part.transitions[number]
        latents = part.latents[number][part.rows] if number <= part.fork else part.latents[number]
        alone = step.mean(run.policy(latents, step.level, part.cond, part.mask, part.rows), latents)
        torch.testing.assert_close(mean, alone, rtol=1e-5, atol=1e-5)


def test_random_windows_and_shares_change_with_the_rollout(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=5, sde_window_size=2)
    assert {tuple(experience(run, generation).trained) for generation in range(8)} == {(0, 1), (1, 2), (2, 3)}
    run = trainer(tmp_path, num_sampling_steps=5, timestep_fraction=0.5)
    picks = [experience(run, generation).trained for generation in range(6)]
    assert all(len(pick) == 2 for pick in picks)
    assert len({tuple(pick) for pick in picks}) > 1


# ---- rollouts


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_rollout_does_not_depend_on_how_its_groups_are_divided(tmp_path, per_sample):
    run = trainer(tmp_path, exploration="smooth", head_noise_per_sample=per_sample)

    def states(first: int, stop: int) -> list[torch.Tensor]:
        groups = Groups.of(NUMBERS[first:stop], first, 4)
        truth = run.conditions(groups.conditions)
        drawn = draw(run.args, run.policy, run.denoiser, run.rollout_scheduler, truth, 7, groups)
        shared = drawn.fork + 1
        return [*(x[drawn.rows] for x in drawn.latents[:shared]), *drawn.latents[shared:], *drawn.log_probs]

    parts = zip(states(0, 3), states(3, 8), strict=True)
    for whole, halves in zip(states(0, 8), parts, strict=True):
        torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-5, atol=1e-5)


def test_rollouts_differ_by_generation_and_repeat_by_seed(tmp_path):
    run = trainer(tmp_path)
    first, again, other = experience(run), experience(run), experience(run, 1)
    for a, b, c in zip(first.latents, again.latents, other.latents, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    reseeded = experience(trainer(tmp_path, seed=1))
    assert not torch.equal(first.latents[0], reseeded.latents[0])


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_policy_sees_a_perturbed_head_and_is_rewarded_on_the_clean_one(tmp_path, per_sample):
    seen: list[RewardInputs] = []

    def reward(inputs: RewardInputs) -> torch.Tensor:
        seen.append(inputs)
        return inputs.joints[:, :, 15, 2].mean(1)

    run = trainer(tmp_path, head_noise=0.2, head_noise_per_sample=per_sample, rewards_by_name={"mine": reward})
    part = experience(run)
    truth = run.conditions([3, 5])
    clean = run.denoiser.condition(truth.head)
    assert len(part.cond) == (8 if per_sample else 2)
    assert (part.cond - (clean.repeat_interleave(4, 0) if per_sample else clean)).abs().max() > 0.01
    assert torch.equal(part.cond[0], part.cond[1]) is False
    assert torch.equal(seen[0].head.p_world_cpf, truth.head.p_world_cpf.repeat_interleave(4, 0))
    assert torch.equal(seen[0].true_joints, truth.joints.repeat_interleave(4, 0))
    # Hung from the clean head: the heads of all samples are where it is.
    heads = seen[0].joints[:, :, 15]
    assert (heads - heads[:1].expand_as(heads))[:4].abs().max() < 0.15


def test_a_recorded_motion_earns_every_reward_in_full(tmp_path):
    """Truth and sample go through the same kinematics."""
    run = trainer(tmp_path)
    truth = run.conditions([3, 5])
    inputs = run._reward_inputs(truth.state, truth, [0, 1])
    for name, reward in run.rewards.items():
        torch.testing.assert_close(reward(inputs), torch.ones(2), rtol=0, atol=1e-4, msg=name)


# ---- updates


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
    # A reference that followed the policy would still be at 0.


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
