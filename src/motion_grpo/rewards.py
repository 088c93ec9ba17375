"""Rewards of a sampled motion (MotionGRPO, Eq. 10-14): a batch of samples in, one value a sample out, higher is better.

Every built-in reward but ``visual`` is exp(-omega * error), 1 for a perfect motion. Its error is a metric of
:mod:`motion_grpo.metrics` over short runs of frames, so it can also be told frame by frame
(:meth:`ErrorReward.per_frame`). The paper gives no units: here they are meters, seconds and radians.

Any function of :class:`RewardInputs` that returns one value per sample is a reward too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import cast

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from motion_grpo import metrics
from motion_grpo.body import NUM_BODY_AND_ROOT
from motion_grpo.body.joints import FOOT_JOINTS, MOVED_UNDER_HEAD
from motion_grpo.geometry.rotations import geodesic_angle
from motion_grpo.models.perceptual import MotionPerceptualModel, perceptual_inputs
from motion_grpo.trajectory.head_poses import HeadPoses


@dataclass(frozen=True)
class RewardInputs:
    """A batch of samples beside what was recorded, float32, all on one device.

    World frames are z up with the floor at z = 0, meters. What lies in frames that the mask leaves out counts nowhere.
    """

    body_rotmats: Float[Tensor, "samples frames 21 3 3"]
    """Local rotations of the sampled body."""
    joints: Float[Tensor, "samples frames 22 3"]
    """World positions of the sampled body's joints, root first, hung from the clean head."""
    contacts: Float[Tensor, "samples frames 21"]
    """Sampled contact probabilities."""
    head: HeadPoses
    """Clean head, not perturbed."""
    mask: Bool[Tensor, "samples frames"]
    """True for frames that count."""
    fps: float
    true_body_rotmats: Float[Tensor, "samples frames 21 3 3"] | None = None
    true_joints: Float[Tensor, "samples frames 22 3"] | None = None
    true_contacts: Float[Tensor, "samples frames 21"] | None = None
    """Whether the recorded joint rests on the ground, 0 to 1."""


_MM = 1000.0
_JOINT_MM = 22 * _MM
"""From a sum over joints in mm to the mean of all joints in meters."""

Reward = Callable[[RewardInputs], Tensor]
"""From a batch to one value a sample, (samples,)."""


@dataclass(frozen=True)
class ErrorReward:
    """exp(-omega * mean error over the frames): the form of Eq. 11-14."""

    error: Callable[[RewardInputs], Float[Tensor, "samples steps"]]
    """An error for every run of d + 1 successive frames: T - d of them, d = 0 for poses, 1 for velocities."""
    omega: float = 1.0
    smooth_frames: int = 9
    """Frames that :meth:`per_frame` averages the error over, centerd (an even number counts as the next odd one)."""
    needs_truth: bool = True
    joint_error: Callable[[RewardInputs], Float[Tensor, "samples steps 22"]] | None = None
    """How much of that error the rotation of each body joint has a part in, first the whole of it, for all that is no
    body joint's rotation. None where this cannot be said: then every joint has the whole."""

    def __call__(self, inputs: RewardInputs) -> Float[Tensor, " samples"]:
        """The paper's scalar. NaN where no run of frames counts."""
        error, counts = _counted(self.error(inputs)[..., None], inputs.mask)
        return torch.exp(-self.omega * error.sum(dim=(1, 2)) / counts.sum(dim=(1, 2)))

    def per_frame(self, inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
        """The same formula over the frames around each one; 0 in frames that do not count.

        Every run of frames that touches the ``smooth_frames`` around a frame counts there alike, the ends of the window
        and padding being left out of the mean. With ``smooth_frames`` of twice the window all frames have the scalar.
        """
        return self._smoothed(self.error(inputs)[..., None], inputs.mask)[..., 0]

    def per_joint(self, inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
        """The same of ``joint_error``: frame by frame, and only of what a joint's rotation has a part in."""
        if self.joint_error is None:
            return self.per_frame(inputs)[..., None].expand(-1, -1, NUM_BODY_AND_ROOT)
        return self._smoothed(self.joint_error(inputs), inputs.mask)

    def _smoothed(self, error: Float[Tensor, "samples steps parts"], mask: Tensor) -> Tensor:
        half, order = self.smooth_frames // 2, mask.shape[1] - error.shape[1]
        error, counts = _counted(error, mask)
        total, number = (
            F.avg_pool1d(F.pad(values.mT, (half + order, half + order)), 2 * half + order + 1, stride=1).mT
            for values in (error, counts)
        )
        return torch.where(mask[..., None], torch.exp(-self.omega * total / number), 0.0)


@dataclass(frozen=True)
class VisualReward:
    """exp(omega * s), s the perceptual model's score of the motion under the clean head (Eq. 10): 1 to e^omega."""

    model: MotionPerceptualModel
    """In eval mode, on the device of the inputs."""
    omega: float = 1.0
    batch_size: int = 64
    """Samples that are scored at once. The paper's model has a token for every joint and frame: 11 GB an activation for
    the 1024 samples of a rollout."""

    def __call__(self, inputs: RewardInputs) -> Float[Tensor, " samples"]:
        """The reward of every sample."""
        head = inputs.head
        body, head = perceptual_inputs(inputs.body_rotmats, inputs.joints, head.R_world_cpf, head.p_world_cpf)
        parts = zip(*(x.split(self.batch_size) for x in (body, head, inputs.mask)), strict=True)
        return torch.exp(self.omega * torch.cat([self.model(*part).score for part in parts]))


def rotation_error(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """Mean angle between sampled and true local rotations of the 21 body joints, radians (Eq. 11).

    Eq. 11 writes an L1 norm and names no parameters. Eq. 19 writes the same norm for the metric that the text beside it
    calls the mean geodesic distance: that is taken here. Unlike components of an axis-angle vector or a quaternion it
    depends neither on the axes nor on which of several vectors stands for a rotation.
    """
    return torch.deg2rad(metrics.mpjre(_runs(inputs.body_rotmats, 1), _runs(_known(inputs.true_body_rotmats), 1)))


def rotation_l1_error(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """Mean L1 distance of the 21 body joints' axis-angle vectors, radians, each component wrapped to +-pi (Eq. 11).

    Eq. 11 as it is written: Appendix E says that the training takes a distance of rotation parameters and the
    evaluation the geodesic one. The authors' code takes AGRoL's mean over the three components, a third of this norm.
    """
    return _rotvec_distances(inputs).mean(dim=-1)


def position_error(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """Mean distance of the 22 joints from the true ones, meters (Eq. 12)."""
    return metrics.mpjpe(_runs(inputs.joints, 1), _runs(_known(inputs.true_joints), 1)) / _MM


def aligned_position_error(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """The same after every frame was moved, turned and scaled onto the truth, meters (Eq. 13; Umeyama).

    The text says that R_pos is computed with and R'_pos without alignment, but p' is the position after it: primed is
    aligned here, and has the weight 0.5 of omega'_pos.
    """
    return metrics.pa_mpjpe(_runs(inputs.joints, 1), _runs(_known(inputs.true_joints), 1)) / _MM


def aligned_position_error_egoallo(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """What EgoAllo's code calls PA-MPJPE, meters: how far the truth moves when it is aligned to the sample."""
    return metrics.pa_mpjpe_egoallo(_runs(inputs.joints, 1), _runs(_known(inputs.true_joints), 1)) / _MM


def velocity_error(inputs: RewardInputs) -> Float[Tensor, "samples steps"]:
    """Mean distance of the 22 joints' velocities from the true ones, meters per second (Eq. 14)."""
    return metrics.mpjve(_runs(inputs.joints, 2), _runs(_known(inputs.true_joints), 2), inputs.fps) / _MM


def joint_rotation_error(inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
    """What each joint's own angle adds to :func:`rotation_error`, behind their sum."""
    angle = geodesic_angle(inputs.body_rotmats, _known(inputs.true_body_rotmats))
    share = angle / angle.shape[-1]
    return torch.cat([share.sum(dim=-1, keepdim=True), share], dim=-1)


def joint_rotation_l1_error(inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
    """The same of :func:`rotation_l1_error`."""
    distance = _rotvec_distances(inputs)
    share = distance / distance.shape[-1]
    return torch.cat([share.sum(dim=-1, keepdim=True), share], dim=-1)


def joint_position_error(inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
    """What the joints that one joint's rotation moves under the head add to :func:`position_error`."""
    return _by_mover(metrics.mpjpe(_each(inputs.joints, 1), _each(_known(inputs.true_joints), 1))) / _JOINT_MM


def joint_aligned_position_error(inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
    """The same of :func:`aligned_position_error`; that every joint takes part in the alignment is left out."""
    aligned = metrics.align_similarity(inputs.joints, _known(inputs.true_joints))
    return _by_mover(metrics.mpjpe(_each(aligned, 1), _each(_known(inputs.true_joints), 1))) / _JOINT_MM


def joint_velocity_error(inputs: RewardInputs) -> Float[Tensor, "samples steps 22"]:
    """The same of :func:`velocity_error`."""
    return (
        _by_mover(metrics.mpjve(_each(inputs.joints, 2), _each(_known(inputs.true_joints), 2), inputs.fps)) / _JOINT_MM
    )


def ground_penetration_error(inputs: RewardInputs) -> Float[Tensor, "samples frames"]:
    """Depth of the joints below the floor, summed over the 22, meters."""
    return metrics.ground_penetration(_runs(inputs.joints, 1))


def foot_skating_error(inputs: RewardInputs) -> Float[Tensor, "samples steps"]:
    """Horizontal speed of ankles and toes while within 2 cm of the floor, summed over the four, meters per second."""
    return metrics.foot_skating(_runs(inputs.joints, 2)) * inputs.fps


def foot_contact_error(inputs: RewardInputs) -> Float[Tensor, "samples steps"]:
    """How far the velocities of ankles and toes are from the true ones while those rest, summed, meters per second.

    Unlike :func:`foot_skating_error` it cannot be made smaller by holding the feet above the height that counts.
    """
    return _planted_speeds(inputs).sum(dim=-1)


def jitter_error(inputs: RewardInputs) -> Float[Tensor, "samples steps"]:
    """Mean size of the 22 joints' third derivative, 100 m/s^3."""
    return metrics.jitter(_runs(inputs.joints, 4), inputs.fps)


def joint_ground_penetration_error(inputs: RewardInputs) -> Float[Tensor, "samples frames 22"]:
    """What the joints that one joint's rotation moves under the head add to :func:`ground_penetration_error`."""
    return _by_mover(metrics.ground_penetration(_each(inputs.joints, 1)))


def joint_foot_skating_error(inputs: RewardInputs) -> Float[Tensor, "samples steps 22"]:
    """The same of :func:`foot_skating_error`."""
    feet = _each(inputs.joints[..., FOOT_JOINTS, :], 2)
    return _by_mover(metrics.foot_skating(feet, joints=[0]), FOOT_JOINTS) * inputs.fps


def joint_foot_contact_error(inputs: RewardInputs) -> Float[Tensor, "samples steps 22"]:
    """The same of :func:`foot_contact_error`."""
    return _by_mover(_planted_speeds(inputs), FOOT_JOINTS)


def joint_jitter_error(inputs: RewardInputs) -> Float[Tensor, "samples steps 22"]:
    """The same of :func:`jitter_error`."""
    return _by_mover(metrics.jitter(_each(inputs.joints, 4), inputs.fps)) / 22


def _rotvec_distances(inputs: RewardInputs) -> Float[Tensor, "samples frames 21"]:
    sampled, true = map(roma.rotmat_to_rotvec, (inputs.body_rotmats, _known(inputs.true_body_rotmats)))
    difference = sampled - true
    turns = (difference.detach() / (2 * torch.pi)).round()
    return (difference - 2 * torch.pi * turns).abs().sum(dim=-1)


def _planted_speeds(inputs: RewardInputs) -> Float[Tensor, "samples steps 4"]:
    feet, true_feet = (joints[..., FOOT_JOINTS, :] for joints in (inputs.joints, _known(inputs.true_joints)))
    rests = _known(inputs.true_contacts)[..., [joint - 1 for joint in FOOT_JOINTS]]
    speeds = torch.linalg.vector_norm((feet - true_feet).diff(dim=1), dim=-1) * inputs.fps
    return speeds * rests[:, 1:] * rests[:, :-1]


def _by_mover(
    errors: Float[Tensor, "samples steps joints"], joints: Sequence[int] = range(22)
) -> Float[Tensor, "samples steps 22"]:
    """Sums of these joints' errors over those that each joint's rotation moves."""
    moved = torch.tensor(MOVED_UNDER_HEAD).to(errors)
    moved[0] = 1.0  # betas move all of them
    return errors @ moved[:, joints].T


REWARDS: dict[str, ErrorReward] = {
    "rotation": ErrorReward(rotation_error, joint_error=joint_rotation_error),
    "rotation_l1": ErrorReward(rotation_l1_error, joint_error=joint_rotation_l1_error),
    "position": ErrorReward(position_error, joint_error=joint_position_error),
    "aligned_position": ErrorReward(aligned_position_error, joint_error=joint_aligned_position_error, omega=0.5),
    "aligned_position_egoallo": ErrorReward(aligned_position_error_egoallo),
    "velocity": ErrorReward(velocity_error, joint_error=joint_velocity_error),
    "ground_penetration": ErrorReward(
        ground_penetration_error, joint_error=joint_ground_penetration_error, omega=10.0, needs_truth=False
    ),
    "foot_skating": ErrorReward(foot_skating_error, joint_error=joint_foot_skating_error, needs_truth=False),
    "foot_contact": ErrorReward(foot_contact_error, joint_error=joint_foot_contact_error),
    "jitter": ErrorReward(jitter_error, joint_error=joint_jitter_error, omega=0.1, needs_truth=False),
}
"""Rewards by name, with the paper's omega (Appendix C) for its own four; ``visual`` joins them once it has a model."""


def build_rewards(
    names: Sequence[str],
    *,
    omegas: Mapping[str, float] | None = None,
    smooth_frames: int = 9,
    perceptual_model: MotionPerceptualModel | None = None,
) -> dict[str, Reward]:
    """Rewards in the order of their names, as a YAML file gives them.

    Args:
        names: ``visual``, keys of `REWARDS`, and ``module:function`` for your own, which is listed under the
            function's name. An :class:`ErrorReward` of one's own can be told frame by frame like those here.
        omegas: by name, instead of the default; not for one's own.
        smooth_frames: see :class:`ErrorReward`.
        perceptual_model: what ``visual`` asks; it is put into eval mode and its weights are frozen.

    Raises:
        ValueError: no names, an unknown or repeated one, one of something that is no function, an omega for none of
            them, or ``visual`` without a model.
        ImportError: no such module or function.
    """
    if not names:
        raise ValueError(f"There are no rewards; name some of visual, {', '.join(REWARDS)} or module:function.")
    omegas = dict(omegas or {})
    rewards: dict[str, Reward] = {}
    for name in names:
        key = name.rpartition(":")[2]
        if key in rewards:
            raise ValueError(f"Two rewards are named {key!r}; every reward needs a name of its own.")
        if ":" in name:
            rewards[key] = _imported(name)
        elif name == "visual":
            if perceptual_model is None:
                raise ValueError("The reward 'visual' needs a perceptual model; give one or leave the reward out.")
            model = perceptual_model.requires_grad_(False).eval()
            rewards[key] = VisualReward(model, omegas.pop(name, VisualReward.omega))
        elif name in REWARDS:
            omega = omegas.pop(name, REWARDS[name].omega)
            rewards[key] = replace(REWARDS[name], omega=omega, smooth_frames=smooth_frames)
        else:
            raise ValueError(f"There is no reward {name!r}; there are visual, {', '.join(REWARDS)}, module:function.")
    if omegas:
        raise ValueError(
            f"There is an omega for {', '.join(omegas)}, which is no built-in reward of this list; add it, or leave "
            "the omega out."
        )
    return rewards


def needing_truth(rewards: Mapping[str, Reward]) -> list[str]:
    """Names of the rewards that are known to compare with recorded motion."""
    return [name for name, reward in rewards.items() if isinstance(reward, ErrorReward) and reward.needs_truth]


@torch.no_grad()
def score(rewards: Mapping[str, Reward], inputs: RewardInputs) -> dict[str, Float[Tensor, " samples"]]:
    """:func:`score_with_gradient` without one."""
    return score_with_gradient(rewards, inputs)


def score_with_gradient(rewards: Mapping[str, Reward], inputs: RewardInputs) -> dict[str, Float[Tensor, " samples"]]:
    """One value a sample of every reward, float32 whatever the autocast, checked (:func:`check_rewards`).

    Raises:
        ValueError: a reward needs the truth and the inputs have none, or what it returns is no reward.
    """
    return _evaluated(rewards, inputs, (len(inputs.mask),))


def check_differentiable(rewards: Mapping[str, Reward], inputs: RewardInputs) -> None:
    """Refuses rewards that do not tell how a sample has to change.

    Args:
        rewards: by name.
        inputs: any samples.

    Raises:
        ValueError: the first such reward is named.
    """
    body_rotmats, joints, contacts = (
        x.detach().clone().requires_grad_() for x in (inputs.body_rotmats, inputs.joints, inputs.contacts)
    )
    inputs = replace(inputs, body_rotmats=body_rotmats, joints=joints, contacts=contacts)
    for name, value in score_with_gradient(rewards, inputs).items():
        if not value.requires_grad:
            raise ValueError(
                f"The reward {name!r} has no gradient with respect to the motion, so there is nothing to follow; leave "
                "it out, or post-train by GRPO (trainers/grpo.py), which needs values alone."
            )


@torch.no_grad()
def score_parts(
    rewards: Mapping[str, Reward],
    inputs: RewardInputs,
    scored: Mapping[str, Tensor] | None = None,
    *,
    joints: bool = False,
) -> dict[str, Float[Tensor, "samples frames *joints"]]:
    """One value a frame, or a frame and joint, of every reward, 0 in frames that do not count; else as :func:`score`.

    A reward that cannot say where it was earned has its one value everywhere.

    Args:
        rewards: by name.
        inputs: what to judge.
        scored: what :func:`score` found of the same inputs; such rewards are not asked again then.
        joints: :meth:`ErrorReward.per_joint`, or :meth:`ErrorReward.per_frame`.
    """
    shape = (*inputs.mask.shape, NUM_BODY_AND_ROOT) if joints else tuple(inputs.mask.shape)
    located = {name: reward for name, reward in rewards.items() if isinstance(reward, ErrorReward)}
    whole = {name: reward for name, reward in rewards.items() if name not in located}
    scored = score(whole, inputs) if scored is None else scored
    ones = inputs.mask.to(inputs.joints).view(*inputs.mask.shape, *[1] * joints).expand(shape)
    spread = {name: scored[name].view(-1, *[1] * (len(shape) - 1)) * ones for name in whole}
    _check_truth(located, inputs)
    parts = {name: reward.per_joint if joints else reward.per_frame for name, reward in located.items()}
    found = _evaluated(parts, inputs, shape) | spread
    return {name: found[name] for name in rewards}


def check_rewards(values: Mapping[str, object], shape: tuple[int, ...]) -> None:
    """Refuses what is no reward, at the cost of one wait for the device.

    Raises:
        ValueError: values that are no tensor, have another shape or are not all finite; the reward is named.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"The reward {name!r} returned a {type(value).__name__}; it must return a tensor.")
        if value.shape != shape:
            raise ValueError(f"The reward {name!r} returned the shape {tuple(value.shape)}; it must be {shape}.")
        tensors[name] = value
    if not tensors:
        return
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
    for name, good in zip(values, finite, strict=True):
        if not good:
            sample = int((~tensors[name].isfinite()).nonzero()[0, 0])
            raise ValueError(
                f"The reward {name!r} is NaN or infinite for sample {sample} of {shape[0]}; a reward must be finite "
                "for every motion, and a window needs as many frames as the reward looks at together."
            )


def _evaluated(rewards: Mapping[str, Reward], inputs: RewardInputs, shape: tuple[int, ...]) -> dict[str, Tensor]:
    _check_truth(rewards, inputs)
    # Kinematics in bfloat16 would be off by centimeters.
    with torch.autocast(inputs.joints.device.type, enabled=False):
        values = {name: reward(inputs) for name, reward in rewards.items()}
    check_rewards(values, shape)
    return {name: value.to(inputs.joints) for name, value in values.items()}


def _check_truth(rewards: Mapping[str, Reward], inputs: RewardInputs) -> None:
    without = any(true is None for true in (inputs.true_body_rotmats, inputs.true_joints, inputs.true_contacts))
    if without and (names := needing_truth(rewards)):
        raise ValueError(
            f"The rewards {', '.join(names)} compare with recorded motion, which these conditions have none of; use a "
            "data set with ground truth, or other rewards."
        )


def _imported(name: str) -> Reward:
    module, _, function = name.partition(":")
    try:
        imported = import_module(module)
    except ImportError as error:
        raise ImportError(f"The reward {name!r} cannot be imported: {error}; is {module} on PYTHONPATH?") from error
    try:
        reward = getattr(imported, function)
    except AttributeError as error:
        raise ImportError(f"The reward {name!r}: module {module} has no {function}.") from error
    if not callable(reward):
        raise ValueError(f"The reward {name!r} is a {type(reward).__name__}; it must be a function of RewardInputs.")
    return cast(Reward, reward)


def _known(true: Tensor | None) -> Tensor:
    if true is None:
        raise ValueError("This reward compares with recorded motion, and there is none; give the inputs true_...")
    return true


def _counted(error: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (samples, steps, parts), 0 where they do not count, and where they do (0 or 1)."""
    counts = _runs(mask, mask.shape[1] - error.shape[1] + 1).all(dim=-1)[..., None]
    return torch.where(counts, error, 0.0), counts.to(error.dtype)


def _runs(values: Tensor, length: int) -> Tensor:
    """Every run of so many successive frames (axis 1), a sequence of its own on a new axis 2; a view."""
    return values.unfold(1, length, 1).movedim(-1, 2)


def _each(
    joints: Float[Tensor, "samples frames joints 3"], length: int
) -> Float[Tensor, "samples steps joints run 1 3"]:
    """Such runs of every joint alone."""
    return _runs(joints, length).movedim(-2, 2)[..., None, :]
