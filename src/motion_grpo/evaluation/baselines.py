"""What a claim should be held against: systems that know nothing, or only the training set."""

from collections.abc import Iterable
from dataclasses import replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from motion_grpo.body import BODY_JOINT_NAMES, NUM_BETAS, NUM_BODY_JOINTS, Skeleton
from motion_grpo.data import Clip
from motion_grpo.evaluation.clips import System, head_trajectory
from motion_grpo.geometry.rotations import heading, low_pass_rotations, project_to_rotation, yaw_rotation
from motion_grpo.models.conditioning import head_features
from motion_grpo.motion import Motion
from motion_grpo.trajectory.head_poses import HeadPoses

SIGMA_FRAMES = 2.0
"""Of the Gaussian that :func:`smoothed` filters with."""


def ground_truth(clip: Clip) -> list[Motion]:
    """The recording itself: no errors, and the jitter, skating and penetration that real motion scores."""
    return [clip.motion]


def upright(clip: Clip) -> list[Motion]:
    """A mean body frozen under every head: the rest pose with its arms straight down, facing where the head faces.

    Only its head turns with the true one; the rest stands upright, at whatever height that puts its feet. It needs no
    training set: what does no better knows nothing of motion.
    """
    frames = len(clip.motion)
    head = head_trajectory(clip)
    # The rest pose faces +z with y up, as the CPF does: level, it is under a head that looks at the horizon.
    R_world_root = yaw_rotation(heading(head.R_world_cpf)) @ _LEVEL_CPF
    pose = torch.eye(3).repeat(frames, NUM_BODY_JOINTS, 1, 1)
    for side, name in ((-1.0, "L_shoulder"), (1.0, "R_shoulder")):
        down = torch.tensor([0.0, 0.0, side * torch.pi / 2])
        pose[:, BODY_JOINT_NAMES.index(name)] = roma.rotvec_to_rotmat(down)
    pose[:, BODY_JOINT_NAMES.index("head")] = R_world_root.mT @ head.R_world_cpf
    return [_hang(clip, pose, torch.zeros(NUM_BETAS), torch.zeros(frames, NUM_BODY_JOINTS), clip.motion.body)]


def mean_pose(train: Iterable[Clip]) -> System:
    """One still body under every head: mean local rotations (chordal, per joint) and mean betas of all training frames.

    Raises:
        ValueError: no clips.
    """
    rotations = torch.zeros(NUM_BODY_JOINTS, 3, 3, dtype=torch.float64)
    shape, frames = torch.zeros(NUM_BETAS, dtype=torch.float64), 0
    for clip in train:
        rotations += clip.motion.body_rotmats.double().sum(0)
        shape += len(clip.motion) * clip.motion.betas.double()
        frames += len(clip.motion)
    if frames == 0:
        raise ValueError("There are no training clips to take the mean pose from.")
    pose, betas = project_to_rotation(rotations / frames).float(), (shape / frames).float()

    def mean_pose_system(clip: Clip) -> list[Motion]:
        frames = len(clip.motion)
        contacts = torch.zeros(frames, NUM_BODY_JOINTS)
        return [_hang(clip, pose.expand(frames, -1, -1, -1), betas, contacts, clip.motion.body)]

    return mean_pose_system


class NearestNeighbour:
    """The training motion under the most similar head, chunk by chunk, hung from the true head.

    Features are those of :func:`~motion_grpo.models.conditioning.head_features` ("ours", no Fourier encoding),
    standardized over the training frames; the nearest window has the least squared distance, summed over its frames.
    Joints jump between chunks. Betas are the mean over the frames that were found. Memory: about 1.7 kB a training
    frame.

    Args:
        train: clips to look in.
        chunk: frames that are looked up together; the last chunk of a clip overlaps the one before.
        stride: frames between the training windows (and one at every clip's end).

    Raises:
        ValueError: no clips.
    """

    def __init__(self, train: Iterable[Clip], chunk: int = 32, stride: int = 4) -> None:
        features, rotmats, contacts, betas, rows, offset = [], [], [], [], [], 0
        for clip in train:
            motion, last = clip.motion, len(clip.motion) - chunk
            features.append(_features(clip))
            rotmats.append(motion.body_rotmats)
            contacts.append(motion.contacts)
            betas.append(motion.betas.expand(len(motion), -1))
            starts = torch.tensor([*range(0, last, stride), max(last, 0)])
            rows.append(offset + _places(starts, chunk, len(motion)))
            offset += len(motion)
        if not features:
            raise ValueError("There are no training clips to look for neighbors in.")
        self.chunk = chunk
        self.rotmats, self.contacts, self.betas, self.rows = map(torch.cat, (rotmats, contacts, betas, rows))
        frames = torch.cat(features)
        # Cosines of millimetre steps hardly move: the floor keeps rounding errors from being blown up.
        self.mean, self.std = frames.mean(0), frames.std(0).clamp(min=1e-3)
        self.windows = ((frames - self.mean) / self.std)[self.rows].flatten(1)
        self.squares = self.windows.square().sum(1)

    def __call__(self, clip: Clip) -> list[Motion]:
        """The motion whose chunks are the nearest of the training clips."""
        frames, chunk = len(clip.motion), self.chunk
        first = torch.arange(0, frames, chunk)
        starts = first.clamp(max=max(frames - chunk, 0))
        query = ((_features(clip) - self.mean) / self.std)[_places(starts, chunk, frames)].flatten(1)
        nearest = (self.squares[:, None] - self.windows @ (2 * query.T)).argmin(0)
        known = (first - starts).tolist()
        rows = torch.cat([self.rows[i, skip:] for i, skip in zip(nearest, known, strict=True)])[:frames]
        return [_hang(clip, self.rotmats[rows], self.betas[rows].mean(0), self.contacts[rows], clip.motion.body)]


def smoothed(system: System, sigma_frames: float = SIGMA_FRAMES) -> System:
    """A system whose motions are low-pass filtered in time and hung from the true head again.

    The filter is :func:`~motion_grpo.geometry.rotations.low_pass_rotations`. What it gains in
    jitter and velocity costs nothing, so a better model should gain more.

    Args:
        sigma_frames: deviation of the Gaussian, frames.
    """

    def smooth(rotmats: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3 3"]:
        return low_pass_rotations(rotmats.transpose(0, 1), sigma_frames).transpose(0, 1)

    def smoothed_system(clip: Clip) -> list[Motion]:
        return [_hang(clip, smooth(m.body_rotmats), m.betas, m.contacts, m.body) for m in system(clip)]

    return smoothed_system


_LEVEL_CPF = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""R_world_cpf of a head that looks along +x at the horizon: its columns are left, up and forward."""


def _hang(
    clip: Clip,
    body_rotmats: Float[Tensor, "frames 21 3 3"],
    betas: Float[Tensor, "16"],
    contacts: Float[Tensor, "frames 21"],
    skeleton: Skeleton,
) -> Motion:
    """The body in this pose, moved as a whole until its central pupil frame is the clip's."""
    head = head_trajectory(clip)
    body = skeleton.place_by_head(betas, body_rotmats, head.R_world_cpf, head.p_world_cpf)
    return replace(
        clip.motion,
        root_rotmats=body.rotmats[:, 0],
        root_positions=body.joints[:, 0],
        body_rotmats=body_rotmats,
        betas=betas,
        contacts=contacts,
        hand_rotmats=None,
        skeleton=skeleton,
    )


def _features(clip: Clip) -> Float[Tensor, "frames d_cond"]:
    head = head_trajectory(clip).above_floor()
    return head_features(HeadPoses.from_world(head.R_world_cpf, head.p_world_cpf), "ours", octaves=0)


def _places(starts: Int[Tensor, " windows"], chunk: int, frames: int) -> Int[Tensor, "windows chunk"]:
    """Frames of each window; the last one of a clip is repeated where the clip is shorter than a window."""
    return (starts[:, None] + torch.arange(chunk)).clamp(max=frames - 1)
