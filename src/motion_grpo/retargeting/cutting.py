"""Glitches of motion capture: pops of single joints are bridged, takes are cut where no body can have moved so."""

from dataclasses import replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.motion import Motion
from motion_grpo.motion.contacts import with_contacts

POP = 45.0
"""Degrees in one frame of 1/30 s by which a joint jumps away, and back within ``POP_FRAMES``."""
POP_FRAMES = 3
BREAK_METRES = 0.35
"""Farthest that the pelvis, or a joint relative to it, goes in 1/30 s."""
BREAK_DEGREES = 60.0
"""Farthest that a joint of the trunk, a leg's or a shoulder turns, relative to its parent, in 1/30 s."""
MARGIN = 2
"""Frames that go on either side of a break."""
_STIFF_JOINTS = (0, 1, 2, 3, 4, 5, 6, 9, 15, 16, 17)
"""Pelvis, hips, knees, spine, head, shoulders. Wrists, ankles and toes do turn that fast, or are that noisy."""


def bridge_pops(rotmats: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3 3"]:
    """Bridges one to three frames in which a joint jumps by over 45 degrees and back (30 fps, local rotations)."""
    rotmats = rotmats.clone()
    jumps = _angles(rotmats[:-1], rotmats[1:]) > POP
    for frame, joint in jumps.nonzero().tolist():
        R = rotmats[:, joint]
        for length in range(1, min(POP_FRAMES, len(R) - 2 - frame) + 1):
            after = frame + length + 1
            step = roma.rotmat_to_rotvec(R[frame].mT @ R[after])
            if step.norm().rad2deg() < 0.75 * POP and _angles(R[after - 1], R[after]) > POP:
                weight = torch.arange(1, length + 1, dtype=R.dtype)[:, None] / (length + 1)
                rotmats[frame + 1 : after, joint] = R[frame] @ roma.rotvec_to_rotmat(weight * step)
                break
    return rotmats


def whole_pieces(
    rotmats: Float[Tensor, "frames joints 3 3"], joints: Float[Tensor, "frames joints 3"], min_frames: int
) -> list[slice]:
    """Runs of at least ``min_frames`` frames between the breaks, two frames trimmed on either side of each.

    Args:
        rotmats: R_world_root and local rotations, 30 fps.
        joints: world positions, meters.
    """
    relative = joints - joints[:, :1]
    moved = torch.maximum(relative.diff(dim=0).norm(dim=-1).amax(1), joints[:, 0].diff(dim=0).norm(dim=-1))
    turned = _angles(rotmats[:-1, _STIFF_JOINTS], rotmats[1:, _STIFF_JOINTS]).amax(1)
    breaks = ((moved > BREAK_METRES) | (turned > BREAK_DEGREES)).nonzero()[:, 0].tolist()
    # A T-pose left in the first frames is no glitch: what follows it is whole from its second frame on.
    starts = [0, *(b + 1 + (1 if b < 3 else MARGIN) for b in breaks)]
    ends = [*(b + 1 - MARGIN for b in breaks), len(joints)]
    return [slice(a, b) for a, b in zip(starts, ends, strict=True) if b - a >= max(min_frames, 1)]


def cut(motion: Motion, min_frames: int) -> list[Motion]:
    """The usable pieces of a motion at 30 fps, pops bridged, contacts labeled anew; each starts at time 0."""
    if len(motion) < 2:
        return [motion] if len(motion) >= min_frames else []
    rotmats = bridge_pops(motion.local_rotmats[:, :22])
    motion = replace(motion, root_rotmats=rotmats[:, 0], body_rotmats=rotmats[:, 1:])
    pieces = whole_pieces(rotmats, motion.joints[:, :22], min_frames)
    return [
        with_contacts(
            replace(
                motion,
                root_rotmats=motion.root_rotmats[piece],
                root_positions=motion.root_positions[piece],
                body_rotmats=motion.body_rotmats[piece],
                contacts=motion.contacts[piece],
                timestamps=motion.timestamps[piece] - motion.timestamps[piece.start],
            )
        )
        for piece in pieces
    ]


def _angles(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Degrees between rotations."""
    return roma.rotmat_geodesic_distance(a, b).rad2deg()
