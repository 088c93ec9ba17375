"""The head that the policy is shown."""

import torch

from motion_grpo.training.grpo.experience import Groups, perturbed_head
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import head_poses
from tests.training.grpo.setup import WINDOW, config


def test_the_perturbed_first_step_of_a_clip_is_the_second_one(tmp_path):
    """As at the start of a recording, which the pipeline sees, and unlike a window in the middle of a clip."""
    poses = head_poses(WINDOW + 1)
    whole = HeadPoses.from_world(poses[:, :3, :3], poses[:, :3, 3]).window(1, WINDOW + 1)
    starts = torch.tensor([True, False])
    head = HeadPoses(*(torch.stack([x, x]) for x in whole)).without_previous(starts)
    groups = Groups([3, 3], [0, 1], [0, 0])
    moved = perturbed_head(config(tmp_path, head_noise=0.2), head, starts, 0, groups)
    alone = HeadPoses.from_world(moved.R_world_cpf[0], moved.p_world_cpf[0])
    torch.testing.assert_close(moved.p_prev_cpf[0], alone.p_prev_cpf, rtol=0, atol=1e-6)
    torch.testing.assert_close(moved.R_prev_cpf[0], alone.R_prev_cpf, rtol=0, atol=1e-6)
    assert (moved.p_prev_cpf[1, 0] - moved.p_prev_cpf[1, 1]).norm() > 1e-3
