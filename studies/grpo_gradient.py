"""How much of GRPO's gradient is signal: its cosine with the exact gradient of the normalized rewards.

    python studies/grpo_gradient.py --dataset DATA [--policy paper_base] [--batches 6] [--write]

Everything in a rollout is differentiable, so the gradient that GRPO estimates from rewards alone can be had exactly, by
backpropagation through the sampling steps (with noise of its own; the mean over a few rollouts). For several settings
the table has the cosine of one update's gradient with it, of the mean of all updates' (the weights do not move between
them), and what an update costs: processor seconds of one thread, the first update left out. The conditions are the same
throughout: one window of each of eight training clips. More cosine is more progress for each update; what the settings
do is in docs/grpo.md, into which ``--write`` puts the table.
"""

import argparse
import logging
import statistics
import tempfile
import time

import torch
from grpo_study import fill
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PrinterCallback, TrainerCallback

from motion_grpo import EgoMotionPipeline, Skeleton
from motion_grpo.data import MotionWindows, collate_windows, load_clips
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.inference.rollout import predict_clean, transitions
from motion_grpo.inference.sampling import hang_body
from motion_grpo.motion import MotionState
from motion_grpo.rewards import RewardInputs, build_rewards
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer
from motion_grpo.trajectory.head_poses import HeadPoses

REWARDS = ["rotation", "position", "aligned_position", "velocity"]
CONDITIONS, GROUP, FRAMES, STEPS, FPS = 8, 16, 64, 3, 30.0
SMOOTH = {"exploration": "smooth", "last_step_std": 0.02}
WHITE = {"exploration_components": FRAMES, "last_step_std": 0.02}
ALONE = {"sde_window_size": 0}
SETTINGS = {
    "the paper's: sequence, white": {},
    "sequence, white, last step too": WHITE,
    "sequence, smooth, last step too": SMOOTH,
    "frame, smooth": {"credit": "frame", "exploration": "smooth"},
    "frame, smooth, last step too": {"credit": "frame"} | SMOOTH,
    "the same, even weights": {"credit": "frame", "step_weights": "even"} | SMOOTH,
    "joint, smooth, last step too": {"credit": "joint"} | SMOOTH,
    "frame, white, last step too": {"credit": "frame"} | WHITE,
    "joint, white, last step too": {"credit": "joint"} | WHITE,
    "frame, white, last step too, 3 frames": {"credit": "frame", "reward_smooth_frames": 3} | WHITE,
    "joint, white, last step too, 3 frames": {"credit": "joint", "reward_smooth_frames": 3} | WHITE,
    "joint, white, last step too, 1 frame": {"credit": "joint", "reward_smooth_frames": 1} | WHITE,
    "sequence, white, last step alone": WHITE | ALONE,
    "the same, 8 x 128 samples": {"num_generations": 128} | WHITE | ALONE,
    "frame, white, last step alone, 3 frames": {"credit": "frame", "reward_smooth_frames": 3} | WHITE | ALONE,
    "joint, white, last step alone, 3 frames": {"credit": "joint", "reward_smooth_frames": 3} | WHITE | ALONE,
}


def gradient(policy: torch.nn.Module) -> Tensor:
    """Of all weights, in one vector."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in policy.parameters()])


def exact(pipeline: EgoMotionPipeline, truth: TrainingBatch, rollouts: int, last_step_alone: bool = False) -> Tensor:
    """Gradient of the mean over rewards and samples of reward / group std, through all sampling steps or the last."""
    denoiser, skeleton = pipeline.denoiser.eval(), Skeleton.default()
    layout, rewards = denoiser.state_layout, build_rewards(REWARDS)
    scheduler = EgoMotionSDEScheduler.from_config(pipeline.scheduler.config, variance="jump", direction_offset=0.0)
    stream = torch.Generator().manual_seed(5)

    def repeat(x):
        return x.repeat_interleave(GROUP, dim=0)

    head, mask = HeadPoses(*map(repeat, truth.head)), repeat(truth.mask)
    denoiser.zero_grad()
    for _ in range(rollouts):
        cond = denoiser.condition(truth.head)
        encoded = None if denoiser.config.noise_in_encoder else repeat(denoiser.encode(cond, None, truth.mask))
        x = repeat(torch.randn(len(truth.mask), FRAMES, layout.dim, generator=stream))
        for step in transitions(scheduler, STEPS, 1.0):
            with torch.set_grad_enabled(step.next_level == 0 or not last_step_alone):
                clean = predict_clean(denoiser, layout, x, step.level, repeat(cond), mask, encoded)
                x = step.mean(clean, x)
            if step.std > 0:
                x = x + step.std * torch.randn(x.shape, generator=stream)
        state = MotionState.unpack(x, layout)
        body = hang_body(skeleton, state, head)
        inputs = RewardInputs(
            state.body_rotmats,
            body.joints,
            state.contacts,
            head,
            mask,
            FPS,
            repeat(truth.state.body_rotmats),
            repeat(truth.joints),
            repeat(truth.state.contacts),
        )
        values = [reward(inputs).view(-1, GROUP) for reward in rewards.values()]
        (sum((v / v.std(1, keepdim=True).detach()).mean() for v in values) / (len(values) * rollouts)).backward()
    return gradient(denoiser)


class Collect(TrainerCallback):
    """Keeps the gradient of every update, and how much of the processor it took."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.seconds: list[float] = []
        self.started = 0.0

    def on_step_begin(self, *args, **kwargs) -> None:
        self.started = time.process_time()

    def on_step_end(self, *args, **kwargs) -> None:
        self.seconds.append(time.process_time() - self.started)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.gradients.append(-gradient(model.denoiser))


def estimated(policy: str, windows: MotionWindows, batches: int, settings: dict) -> Collect:
    """Ascent directions of so many updates, at weights that do not move."""
    collect = Collect()
    settings = {"num_generations": GROUP} | settings
    with tempfile.TemporaryDirectory() as folder:
        args = MotionGRPOConfig(
            folder, rewards=REWARDS, window=FRAMES, num_sampling_steps=STEPS, head_noise=0.0,
            per_device_train_batch_size=CONDITIONS * settings["num_generations"], gradient_accumulation_steps=1,
            max_steps=batches, learning_rate=0.0, weight_decay=0.0, max_grad_norm=0.0, use_cpu=True,
            save_strategy="no", disable_tqdm=True, report_to="none", **settings,
        )  # fmt: skip
        trainer = MotionGRPOTrainer(EgoMotionPipeline.from_pretrained(policy), args, windows, callbacks=[collect])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return collect


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, type=str)
    parser.add_argument("--policy", default="paper_base")
    parser.add_argument("--batches", default=6, type=int)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    clips = [clip for clip in load_clips(options.dataset, "train") if len(clip.motion) >= FRAMES]
    clips = clips[:: len(clips) // CONDITIONS][:CONDITIONS]
    every = MotionWindows(clips, FRAMES, random=False)
    starts = [index for index, (_, start) in enumerate(every.items) if start == 0]
    every.items = [every.items[index] for index in starts]
    truth = training_batch(collate_windows([every[i] for i in range(CONDITIONS)]), Skeleton.default(), False)
    reference = exact(EgoMotionPipeline.from_pretrained(options.policy), truth, rollouts=4)
    last = exact(EgoMotionPipeline.from_pretrained(options.policy), truth, rollouts=4, last_step_alone=True)
    print(f"{float(last @ reference / reference.square().sum()):.1%} of the exact gradient is that of the last step.")
    lines = [
        f"| {options.policy}, {STEPS} steps, {CONDITIONS} x {GROUP} samples | one update | {options.batches} updates "
        "| seconds an update |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name, settings in SETTINGS.items():
        found = estimated(options.policy, every, options.batches, settings)
        single = statistics.mean(float(cosine_similarity(g, reference, 0)) for g in found.gradients)
        together = float(cosine_similarity(sum(found.gradients), reference, 0))
        lines.append(f"| {name} | {single:.3f} | {together:.3f} | {statistics.median(found.seconds[1:]):.2f} |")
        print(lines[-1], flush=True)
    if options.write:
        fill("gradient", "\n".join(lines), "grpo_gradient")


if __name__ == "__main__":
    main()
