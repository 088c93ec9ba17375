"""A stream of head poses in, a stream of bodies out."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from motion_grpo.body import PosedBody, cpf_of, forward_kinematics
from motion_grpo.motion import FPS
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.streaming import BodyPose, EgoMotionStream, StreamConfig, motion_of
from tests.tiny import head_poses, tiny_pipeline

CONFIG = StreamConfig(lag=3, num_inference_steps=2, window=16, start_after=6, settle_seconds=0.5, temperature=1.0)


def run(stream: EgoMotionStream, frames: int, rate: float = FPS, **options) -> list[BodyPose]:
    poses = head_poses(frames, fps=rate).double()
    given = [stream.push(T, i / rate, **options) for i, T in enumerate(poses)]
    return [pose for pose in given if pose is not None]


@pytest.mark.parametrize("frames_per_token", [1, 4])
@pytest.mark.parametrize("lag", [0, 3])
def test_a_body_hangs_under_every_head_of_the_past(lag: int, frames_per_token: int) -> None:
    pipe = tiny_pipeline(frames_per_token=frames_per_token, rotation_representation="6d")
    given = run(EgoMotionStream(pipe, replace(CONFIG, lag=lag)), 50)
    first = max(6, lag + 2) - 1 - lag
    assert [pose.timestamp * FPS for pose in given] == pytest.approx(range(first, 50 - lag))
    heads = head_poses(50)[first : 50 - lag]
    for pose, head in zip(given, heads, strict=True):
        offset = pipe.skeleton.cpf_offset(pose.betas)
        R, p = cpf_of(PosedBody(pose.world_rotmats, pose.joints), offset)
        assert_close(R, head[:3, :3], rtol=0, atol=1e-5)
        assert_close(p, head[:3, 3], rtol=0, atol=1e-5)
        rest = pipe.skeleton.rest_joints(pose.betas)[:22]
        again = forward_kinematics(rest, pose.local_rotmats, pose.joints[0])
        assert_close(again.joints, pose.joints, rtol=0, atol=1e-5)


def test_the_same_seed_and_poses_give_the_same_bodies_after_a_reset_too() -> None:
    pipe = tiny_pipeline()
    stream = EgoMotionStream(pipe, CONFIG, seed=3)
    first = run(stream, 30)
    stream.reset()
    for again in (run(stream, 30), run(EgoMotionStream(pipe, CONFIG, seed=3), 30)):
        assert_close(torch.stack([p.joints for p in again]), torch.stack([p.joints for p in first]), rtol=0, atol=0)
    other = run(EgoMotionStream(pipe, CONFIG, seed=4), 30)
    assert (torch.stack([p.joints for p in other]) - torch.stack([p.joints for p in first])).abs().max() > 1e-3


def test_shape_settles_and_then_stays() -> None:
    stream = EgoMotionStream(tiny_pipeline(), CONFIG)
    given = run(stream, 60)
    betas = torch.stack([pose.betas for pose in given])
    moved = (betas.diff(dim=0).abs().amax(1) > 0).nonzero().flatten()
    assert len(moved) == 14  # half a second, less the first
    assert int(moved[-1]) == 13


def test_a_known_shape_is_kept_from_the_first_frame() -> None:
    pipe = tiny_pipeline()
    given = run(EgoMotionStream(pipe, CONFIG, stature=1.9), 20)
    assert float(pipe.skeleton.stature(given[0].betas)) == pytest.approx(1.9, abs=0.01)
    assert_close(given[0].betas, given[-1].betas)


def test_memory_does_not_grow() -> None:
    stream = EgoMotionStream(tiny_pipeline(frames_per_token=4), CONFIG)

    def kept() -> tuple[int, ...]:
        return len(stream._frames), len(stream._noise), len(stream._sum), len(stream._weight)

    sizes = []
    for i, T in enumerate(head_poses(80).double()):
        stream.push(T, i / FPS)
        sizes.append(kept())
    assert max(sizes[40:]) == max(sizes[20:40])
    assert max(map(max, sizes)) <= CONFIG.window + 1


def test_uneven_poses_and_a_gap_are_bridged_and_a_jump_starts_anew() -> None:
    stream = EgoMotionStream(tiny_pipeline(), CONFIG)
    poses = head_poses(60).double()
    given = [stream.push(poses[i], i / FPS) for i in range(60) if not 30 <= i < 50]  # 0.7 s without poses
    assert all(pose.joints.isfinite().all() for pose in given if pose is not None)
    assert given[-1].timestamp * FPS == pytest.approx(59 - CONFIG.lag)
    before = stream.betas.clone()
    away = poses[59].clone()
    away[:2, 3] += 30.0
    assert stream.push(away, 60 / FPS) is None
    assert_close(stream.betas, before)  # the wearer is still the same
    assert stream.clock.restarts == 1


def test_a_floor_elsewhere_and_wrists_move_with_the_world() -> None:
    pipe = tiny_pipeline(include_wrists_cond=True)
    wrists = torch.eye(4).repeat(2, 1, 1)
    wrists[:, 2, 3] = 1.0
    unseen = run(EgoMotionStream(pipe, CONFIG), 20)
    seen = run(EgoMotionStream(pipe, CONFIG), 20, hands=(wrists[0], wrists[1]))
    assert (unseen[-1].joints - seen[-1].joints).abs().max() > 1e-4
    stream = EgoMotionStream(pipe, replace(CONFIG, floor_height=-2.0))
    wrists[:, 2, 3] -= 2.0
    lowered = head_poses(20).double()
    lowered[:, 2, 3] -= 2.0
    given = [stream.push(T, i / FPS, (wrists[0], wrists[1])) for i, T in enumerate(lowered)]
    down = torch.tensor([0.0, 0.0, -2.0])
    assert_close(given[-1].joints, seen[-1].joints + down, rtol=0, atol=1e-4)


def test_motion_of_is_even_and_has_one_shape() -> None:
    given = run(EgoMotionStream(tiny_pipeline(), CONFIG), 40)
    motion = motion_of([pose for i, pose in enumerate(given) if i not in (5, 6)])
    assert len(motion) == len(given)
    assert motion.fps == 30.0
    assert_close(motion.betas, given[-1].betas)
    assert_close(motion.root_positions[10], given[10].joints[0])
    with pytest.raises(ValueError, match="There are no poses yet"):
        motion_of([])


def test_the_past_is_told_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from motion_grpo.streaming import stream as module

    asked = []
    real = module.predict_clean

    def spy(network, layout, latents, level, *rest):
        asked.append((level, latents.clone()))
        return real(network, layout, latents, level, *rest)

    monkeypatch.setattr(module, "predict_clean", spy)
    stream = EgoMotionStream(tiny_pipeline(), CONFIG)
    run(stream, 20)
    level, latents = asked[-1]  # the second of two steps
    alpha_bar = float(EgoMotionSDEScheduler().alpha_bars[level])
    past = stream._past - 1
    given_out = (stream._sum / stream._weight)[:past]
    expected = alpha_bar**0.5 * given_out + (1 - alpha_bar) ** 0.5 * stream._noise[:past]
    assert_close(latents[0, :past], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lag": -1}, "lag is -1 frames; it must be 0 to 60"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"window": 8}, "window is 8 frames"),
        ({"window": 16, "lag": 9}, "twice the lag of 9"),
        ({"start_after": 1}, "start_after is 1"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"settle_seconds": -1.0}, "settle_seconds is -1.0"),
    ],
)
def test_settings_without_meaning_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_a_window_longer_than_the_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="window is 32 frames, but the network was trained on 16"):
        EgoMotionStream(tiny_pipeline(), replace(CONFIG, window=32))
