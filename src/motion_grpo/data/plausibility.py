"""Whether an imported motion can be a person's: upright, right way up, of human size and speed, on feet that stand.

A wrong axis, unit, rig or frame rate shows in a whole take, so every measure is a median or mean over one: who falls,
lies, crawls, climbs or turns cartwheels is nobody's fault. Thresholds were set on the 2,976 clips of Bandai-Namco's and
CMU's captures (walks, dances, sport, acrobatics, playground, ladders); the comments name their extremes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT
from motion_grpo.motion import Motion
from motion_grpo.trajectory import HeadTrajectory

_PELVIS, _NECK, _HEAD = 0, 12, 15
_HIPS, _KNEES, _ANKLES, _TOES = [1, 2], [4, 5], [7, 8], [10, 11]
_SHOULDERS, _ELBOWS, _WRISTS = [16, 17], [18, 19], [20, 21]

# Mean direction of the trunk: as long as this where it keeps its direction (cartwheels: at most 0.6).
_STEADY = 0.85
_SIDEWAYS = 0.5
"""Its vertical part, below which it lies (sine of 30 degrees)."""
# Degrees between trunk and legs: 10 in the median clip, 19 in the 95th percentile; who crawls has 40 and more.
_STRAIGHT = 27.0
# Meters per second of the pelvis that nobody makes while lying stretched out.
_LYING_SPEED = 0.4
# Meters from the floor to the lower wrist of who stands on his hands.
_HANDSTAND = 0.35
# Meters; the highest of the captures stands on a playground's bars with the head at 2.2.
_HEAD_HEIGHT = 3.0
# Meters per second, medians over a take; the fastest run of the captures has 4.6, a sprinter 10.
_FAST, _TOO_FAST = 7.0, 15.0
# Steps per second over two seconds and more: one capture in 400 has more, and so have nine of ten walks at twice their
# rate; sprinters too.
_CADENCE, _CADENCE_SECONDS, _SPRINT = 3.4, 1.9, 4.5
# Of a walk that plays twice too fast meters a step over steps a second are half of a walk's; real quick runs have more.
_SHORT_RATIO = 0.21
# Meters a step over steps a second, of who walks: 0.31 in the median walk, and one in 300 has more than this. At half
# its rate a walk has twice its own: eight of ten have more than this.
_WALK_RATIO, _RUNNING = 0.55, 2.2
# Meters that joints are ahead of the middle of their limb. Knees: 0.08 in the median clip, never below 0.008. Elbows:
# -0.05, one in 200 clips above 0.04; -0.05 again of who really walks backwards.
_KNEES_BACK, _ELBOWS_AHEAD, _ELBOWS_BEHIND = -0.005, 0.045, -0.02
# Mean cosine between where a body faces and where it goes, of who walks for so long.
_BACKWARDS, _BACKWARDS_SPEED, _BACKWARDS_SECONDS = -0.6, 0.5, 1.5
# Meters between the ankles along the way, below which a stride has no side.
_STRIDE = 0.08
# The slower foot's speed over the pelvis's: 0.07 in the median walk, 0.5 in runs; over 1 where a path's unit is off.
_SKATING, _MOVING = 0.8, 0.4


@dataclass(frozen=True)
class Doubt:
    """Something about a motion that nobody's body does."""

    sentence: str
    options: tuple[str, ...]
    """Settings of an importer that may be at fault."""
    refused: bool = False
    """Whether it cannot be right at all."""


def doubts(motion: Motion) -> list[Doubt]:
    """What is implausible in a whole take, against its own floor; empty for any person, whatever he does."""
    joints = motion.joints[:, :NUM_BODY_AND_ROOT] - torch.tensor([0.0, 0.0, motion.floor_height])
    found = (_direction(joints, motion.fps), _facing(joints, motion.fps), *_travel(joints, motion.fps))
    return [doubt for doubt in found if doubt is not None]


def head_doubts(trajectory: HeadTrajectory) -> list[Doubt]:
    """The same of a head without a body."""
    up = float(trajectory.R_world_cpf[:, 2, 1].median())
    tilt = torch.rad2deg(torch.acos(torch.tensor(up).clamp(-1, 1)))
    if up < -0.5:
        return [Doubt(f"the head is upside down in the whole recording ({tilt:.0f} degrees)", ("device",), True)]
    if up < 0.5:
        return [
            Doubt(
                f"the head's up axis is {tilt:.0f} degrees off vertical in the median: the wearer lies, or the device "
                "is not on a head",
                ("device",),
            )
        ]
    return []


def _direction(joints: Float[Tensor, "frames 22 3"], fps: float) -> Doubt | None:
    trunk = torch.nn.functional.normalize(joints[:, _NECK] - joints[:, _PELVIS], dim=-1)
    legs = torch.nn.functional.normalize(joints[:, _HIPS].mean(1) - joints[:, _ANKLES].mean(1), dim=-1)
    mean = trunk.mean(0)
    up, steady = float(mean[2]), float(mean.norm())
    if up < -_SIDEWAYS:
        on_hands = float(joints[:, _WRISTS, 2].amin(1).median().abs()) < _HANDSTAND
        return Doubt("the body is upside down in the whole take", ("up", "rig", "t_pose_frame"), not on_hands)
    straight = float(torch.rad2deg((trunk * legs).sum(-1).clamp(-1, 1).acos()).median())
    if steady < _STEADY or abs(up) > _SIDEWAYS * steady or straight > _STRAIGHT:
        return None
    speed = _median_speed(joints[:, _PELVIS], fps)
    lies = "the body lies stretched out in the whole take"
    if speed > _LYING_SPEED:
        return Doubt(f"{lies} and travels at {speed:.2g} m/s: it is on its side", ("up", "rig", "t_pose_frame"), True)
    return Doubt(f"{lies}; if it does not lie, it is on its side", ("up", "rig", "t_pose_frame"))


def _facing(joints: Float[Tensor, "frames 22 3"], fps: float) -> Doubt | None:
    """Whether limbs and travel agree on which way is ahead.

    Left and right swapped turn a body about, and its hips say nothing of it. Retargeting bends knees forward in any
    case, but not elbows.
    """
    left, trunk = joints[:, _HIPS[0]] - joints[:, _HIPS[1]], joints[:, _NECK] - joints[:, _PELVIS]
    ahead = torch.nn.functional.normalize(torch.linalg.cross(left, trunk), dim=-1)

    def bend(first: list[int], middle: list[int], last: list[int]) -> float:
        offsets = joints[:, middle] - (joints[:, first] + joints[:, last]) / 2
        return float((offsets * ahead[:, None]).sum(-1).mean())

    elbows = bend(_SHOULDERS, _ELBOWS, _WRISTS)
    pelvis = joints[:, _PELVIS, :2].diff(dim=0) * fps
    moving = pelvis.norm(dim=-1) > _BACKWARDS_SPEED
    signs = {
        "knees bend backwards": bend(_HIPS, _KNEES, _ANKLES) < _KNEES_BACK,
        "elbows bend forwards": elbows > _ELBOWS_AHEAD,
        "the body walks backwards": float(moving.sum()) / fps > _BACKWARDS_SECONDS
        and elbows > _ELBOWS_BEHIND
        and float(torch.nn.functional.cosine_similarity(pelvis[moving], ahead[1:][moving, :2]).mean()) < _BACKWARDS,
    }
    found = [sign for sign, shown in signs.items() if shown]
    if not found:
        return None
    return Doubt(f"{' and '.join(found)}: left and right of the file may be swapped", ("rig", "up"))


def _travel(joints: Float[Tensor, "frames 22 3"], fps: float) -> list[Doubt]:
    found = []
    head = float(joints[:, _HEAD, 2].median())
    if head > _HEAD_HEIGHT:
        found.append(Doubt(f"the head is {head:.2g} m above the floor in the median", ("metres_per_unit",)))
    pelvis = _speeds(joints[:, _PELVIS, :2], fps)
    speed = float(pelvis.median())
    if speed > _FAST:
        sentence = f"the body travels at {speed:.3g} m/s in the median"
        return [*found, Doubt(sentence, ("metres_per_unit", "fps"), speed > _TOO_FAST)]
    return [*found, *_feet(joints, pelvis, fps), *_steps(joints, fps)]


def _feet(joints: Float[Tensor, "frames 22 3"], pelvis: Float[Tensor, " steps"], fps: float) -> list[Doubt]:
    """Whether one foot stands while the body, of these speeds, goes on; and goes on while feet walk."""
    feet = torch.stack([_speeds(joints[:, toe], fps) for toe in _TOES], dim=1)
    low = joints[1:, _TOES, 2] < 0.15
    moving = (pelvis > _MOVING) & low.any(1)
    if float(moving.float().mean()) < 0.5:
        # Feet that run while the body stays: its path is in another unit than its bones, or it is on a treadmill.
        stance, speed = float(feet.amin(1).median()), float(pelvis.median())
        stays = stance > 0.5 and speed < 0.2 and bool(low.any(1).float().mean() > 0.9)
        return [_skating(stance, speed)] if stays else []
    stance, speed = float(feet[moving].amin(1).median()), float(pelvis[moving].median())
    return [_skating(stance, speed)] if stance > _SKATING * speed else []


def _steps(joints: Float[Tensor, "frames 22 3"], fps: float) -> list[Doubt]:
    """Whether steps follow each other as fast as those of a person of that speed."""
    cadence, speed = _cadence(joints, fps)
    told = f"it takes {cadence:.2g} steps a second at {speed:.2g} m/s, which only plays too"
    if cadence > _CADENCE and _MOVING < speed < min(_SPRINT, _SHORT_RATIO * cadence**2):
        return [Doubt(f"{told} fast", ("fps",))]
    if cadence and speed < _RUNNING and speed > _WALK_RATIO * cadence**2:
        return [Doubt(f"{told} slowly", ("fps",))]
    return []


def _cadence(joints: Float[Tensor, "frames 22 3"], fps: float) -> tuple[float, float]:
    """Steps per second and meters per second of who walks on all the time; 0 and 0 for others.

    A step is when the ankles pass each other along the way of the pelvis.
    """
    path = joints[:, _PELVIS, :2].diff(dim=0)
    if len(path) < _CADENCE_SECONDS * fps or float((path.norm(dim=-1) * fps > _MOVING / 2).float().mean()) < 0.8:
        return 0.0, 0.0
    apart = (joints[1:, _ANKLES[0], :2] - joints[1:, _ANKLES[1], :2]) * torch.nn.functional.normalize(path, dim=-1)
    side = apart.sum(-1)
    wide = (side.abs() > _STRIDE).nonzero().flatten()
    passes = (side[wide].sign().diff() != 0).nonzero().flatten()
    if len(passes) < 3:
        return 0.0, 0.0
    times = (wide[passes] + wide[passes + 1]).double() / 2 / fps
    walked = path[int(wide[passes[0]]) : int(wide[passes[-1] + 1])]
    return 1 / float(times.diff().median()), float(walked.norm(dim=-1).mean()) * fps


def _skating(stance: float, speed: float) -> Doubt:
    return Doubt(
        f"no foot stands while the body travels: the slower foot moves at {stance:.2g} m/s, the pelvis at {speed:.2g}",
        ("metres_per_unit", "rig"),
    )


def _speeds(points: Float[Tensor, "frames axes"], fps: float) -> Float[Tensor, " steps"]:
    return points.diff(dim=0).norm(dim=-1) * fps


def _median_speed(points: Float[Tensor, "frames axes"], fps: float) -> float:
    return float(_speeds(points, fps).median())
