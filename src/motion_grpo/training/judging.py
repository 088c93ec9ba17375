"""Conditions out of a data set, and what the rewards are told of samples for them."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch

from motion_grpo.body import Skeleton
from motion_grpo.data import HeadWindows, MotionWindows, collate_windows
from motion_grpo.data.batches import HeadBatch, TrainingBatch, head_batch, training_batch
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.sampling import hang_body
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS, MotionState
from motion_grpo.rewards import Reward, RewardInputs, build_rewards, needing_truth
from motion_grpo.training.policy_settings import PolicySettings

Conditions = TrainingBatch | HeadBatch
"""With a recorded body, or without."""


def conditions_of(
    windows: MotionWindows | HeadWindows, numbers: list[int], pipeline: EgoMotionPipeline, device: torch.device
) -> Conditions:
    """The windows of these numbers, on the device, as the pipeline's network and body have them."""
    batch = {name: values.to(device) for name, values in collate_windows(windows.__getitems__(numbers)).items()}
    if isinstance(windows, HeadWindows):
        return head_batch(batch)
    return training_batch(batch, pipeline.skeleton.to(device), pipeline.denoiser.config.include_hands)


def reward_inputs(
    state: MotionState, truth: Conditions, skeleton: Skeleton, rows: Sequence[int] | None = None
) -> RewardInputs:
    """Bodies of the samples hung from the clean head as the pipeline does it, beside what was recorded.

    Args:
        state: of the samples, rotations projected.
        truth: of the conditions.
        skeleton: on their device.
        rows: of each sample's condition; samples and conditions are the same when None.
    """
    own = slice(None) if rows is None else list(rows)
    mask, head = truth.mask[own], truth.head.rows(own)
    body = hang_body(skeleton, state, head, mask)
    known = truth if isinstance(truth, TrainingBatch) else None
    return RewardInputs(
        body_rotmats=state.body_rotmats,
        joints=body.joints,
        contacts=state.contacts,
        head=head,
        mask=mask,
        fps=FPS,
        true_body_rotmats=None if known is None else known.state.body_rotmats[own],
        true_joints=None if known is None else known.joints[own],
        true_contacts=None if known is None else known.state.contacts[own],
    )


def named_rewards(args: PolicySettings, device: torch.device, smooth_frames: int = 9) -> dict[str, Reward]:
    """The rewards that settings name.

    Args:
        args: settings.
        device: of the perceptual model that ``visual`` asks.
        smooth_frames: see :class:`~motion_grpo.rewards.ErrorReward`.

    Raises:
        ValueError: ``visual`` without a model, or as for :func:`~motion_grpo.rewards.build_rewards`.
    """
    model = None
    if "visual" in args.rewards:
        if args.perceptual_model is None:
            raise ValueError(
                "The reward 'visual' needs perceptual_model, a trained perceptual model; name one, or leave the reward "
                "out of rewards."
            )
        model = MotionPerceptualModel.from_pretrained(args.perceptual_model).to(device)
    omegas = cast(dict, args.reward_omegas)
    return build_rewards(args.rewards, omegas=omegas, smooth_frames=smooth_frames, perceptual_model=model)


def weights_of(rewards: Mapping[str, Reward], args: PolicySettings) -> list[float]:
    """One weight a reward.

    Raises:
        ValueError: their number is another one.
    """
    if args.reward_weights is None:
        return [1.0] * len(rewards)
    if len(args.reward_weights) != len(rewards):
        raise ValueError(
            f"reward_weights is {args.reward_weights}; give one number each to the rewards {', '.join(rewards)}."
        )
    return args.reward_weights


def check_truth(rewards: Mapping[str, Reward], windows: MotionWindows | HeadWindows) -> None:
    """Refuses rewards that compare with recorded motion, by name, where nobody recorded any."""
    if isinstance(windows, HeadWindows) and (names := needing_truth(rewards)):
        raise ValueError(
            f"The rewards {', '.join(names)} compare with recorded motion, and train_dataset has heads alone; leave "
            "them out, or give MotionWindows."
        )
