"""The sampling loop, against EgoAllo's own output and against a loop written out here."""

import pytest
import roma
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from safetensors.torch import load_file

from motion_grpo.body import HEAD, NECK, Skeleton
from motion_grpo.geometry.rotations import wxyz_to_matrix, yaw_rotation
from motion_grpo.inference import recover_state, sample_latents
from motion_grpo.inference.sampling import hang_body, steady_neck
from motion_grpo.inference.stitching import StitchedDenoiser
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import GOLDEN, head_poses, tiny_denoiser


def head(frames: int) -> HeadPoses:
    poses = head_poses(frames)
    return HeadPoses.from_world(poses[:, :3, :3], poses[:, :3, 3])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_egoallos_sampler_over_two_windows():
    """30 steps of the reference over 161 frames; its projection allows reflections and leaves hands alone."""
    golden = load_file(GOLDEN / "sampler_stitched.safetensors")
    denoiser = EgoMotionDenoiser.from_egoallo(GOLDEN / "egoallo_token_rope")
    T_world_cpf = golden["Ts_world_cpf"]
    p_world_cpf = T_world_cpf[:, 4:] - torch.tensor([0.0, 0.0, float(golden["floor_z"])])
    # The reference conditions frame t on the step to it and has one pose more than frames.
    poses = HeadPoses.from_world(wxyz_to_matrix(T_world_cpf[:, :4]), p_world_cpf).window(1, 162)
    scheduler = EgoMotionSDEScheduler.egoallo()
    scheduler.set_timesteps(30)
    assert scheduler.levels.tolist() == [1000, *(k * k for k in range(29, -1, -1))]

    torch.manual_seed(5)
    x = torch.randn(2, 161, 496)
    torch.testing.assert_close(x, golden["initial_noise"], rtol=0, atol=0)
    with torch.no_grad():
        network = StitchedDenoiser(denoiser, denoiser.condition(poses), stitching="egoallo")
        for t in scheduler.timesteps:
            x0 = MotionState.unpack(network(x, int(t)), denoiser.state_layout, allow_reflection=True)
            noise = torch.randn(2, 161, 496)
            x = scheduler.step(x0.pack(denoiser.state_layout), t, x, variance_noise=noise).prev_sample
    torch.testing.assert_close(x, golden["final"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("rotations", ["matrix", "6d"])
def test_loop_written_out(eta, rotations):
    """One window, no stitching: noise first, then denoise, project and step with the same stream of noise."""
    denoiser, poses = tiny_denoiser(rotation_representation=rotations), head(12)
    layout, scheduler = denoiser.state_layout, EgoMotionSDEScheduler(timestep_spacing="trailing")
    result = sample_latents(
        denoiser, scheduler, poses, num_samples=2, num_inference_steps=4, eta=eta, generator=seeded()
    )
    stream, ab = seeded(), scheduler.alpha_bars
    x = torch.randn(2, 12, layout.dim, generator=stream)
    cond = denoiser.condition(poses).expand(2, -1, -1)
    for t, n in ((1000, 750), (750, 500), (500, 250), (250, 0)):
        with torch.no_grad():
            x0 = denoiser(x, torch.full((2,), t), cond).sample
        x0 = MotionState.unpack(x0, layout).pack(layout)
        s2 = eta**2 * (1 - ab[n]) / (1 - ab[t]) * (1 - ab[t] / ab[n])
        x = ab[n].sqrt() * x0 + (1 - ab[n] - s2).sqrt() * (x - ab[t].sqrt() * x0) / (1 - ab[t]).sqrt()
        if eta and n:
            x = x + s2.sqrt() * torch.randn(2, 12, layout.dim, generator=stream)
        x = x.float()
    torch.testing.assert_close(result, x, rtol=0, atol=1e-5)


def test_result_is_a_clean_state():
    denoiser = tiny_denoiser(include_hands=True)
    latents = sample_latents(denoiser, EgoMotionSDEScheduler(), head(9), num_samples=2, num_inference_steps=3)
    state = MotionState.unpack(latents, denoiser.state_layout, project=False)
    for R in (state.body_rotmats, state.hand_rotmats):
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0, atol=1e-5)
        assert (torch.linalg.det(R) > 0.999).all()
    assert latents.dtype == torch.float32
    assert not latents.requires_grad


def test_recover_state_is_the_unpacked_result():
    denoiser, scheduler, poses = tiny_denoiser(), EgoMotionSDEScheduler(), head(9)
    options = {"num_samples": 2, "num_inference_steps": 2}
    latents = sample_latents(denoiser, scheduler, poses, generator=seeded(), **options)
    state = recover_state(denoiser, scheduler, poses, generator=seeded(), **options)
    torch.testing.assert_close(state.pack(denoiser.state_layout), latents, rtol=0, atol=1e-6)
    assert state.hand_rotmats is None
    assert state.body_rotmats.shape == (2, 9, 21, 3, 3)


def test_given_latents_stand_in_for_drawn_noise():
    denoiser, scheduler, poses = tiny_denoiser(), EgoMotionSDEScheduler(eta=0.0), head(9)
    noise = torch.randn(1, 9, 226, generator=seeded())
    drawn = sample_latents(denoiser, scheduler, poses, num_inference_steps=2, generator=seeded())
    given = sample_latents(denoiser, scheduler, poses, num_inference_steps=2, latents=noise)
    assert torch.equal(drawn, given)
    assert not torch.equal(given, sample_latents(denoiser, scheduler, poses, num_inference_steps=2, latents=noise + 1))
    with pytest.raises(ValueError, match=r"\(2, 9, 226\).*need \(1, 9, 226\)"):
        sample_latents(denoiser, scheduler, poses, latents=noise.repeat(2, 1, 1))


def test_eta_is_the_schedulers_own_unless_given():
    denoiser, poses = tiny_denoiser(), head(9)

    def draw(default: float, **options) -> torch.Tensor:
        scheduler = EgoMotionSDEScheduler(eta=default)
        return sample_latents(denoiser, scheduler, poses, num_inference_steps=3, generator=seeded(), **options)

    assert torch.equal(draw(0.7), draw(0.2, eta=0.7))
    assert torch.equal(draw(0.0), draw(1.0, eta=0.0))
    assert not torch.equal(draw(0.7), draw(0.0))


def test_step_callback_sees_every_step_and_may_replace_the_latents():
    denoiser, scheduler, poses = tiny_denoiser(), EgoMotionSDEScheduler(), head(9)
    seen = []

    def on_step(index, timestep, latents):
        seen.append((index, timestep))
        return torch.full_like(latents, 9.0) if index == 2 else None

    out = sample_latents(denoiser, scheduler, poses, num_inference_steps=3, on_step=on_step)
    assert seen == [(0, 1000), (1, 400), (2, 100)]
    assert out.eq(9.0).all()


def test_batch_callback_is_told_the_number_of_batches():
    totals = []
    denoiser, scheduler = tiny_denoiser(), EgoMotionSDEScheduler()
    options = {"window": 8, "overlap": 4, "window_batch_size": 2, "num_inference_steps": 3}
    sample_latents(denoiser, scheduler, head(20), on_batch=totals.append, **options)
    # Windows at 0, 4, 8 and 12 in pairs, for each of 3 steps.
    assert totals == [6] * 6


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
def test_first_order_samplers_of_diffusers_are_ours_without_noise(kind):
    """DDIM is the same formula, and Euler's step on x / sqrt(alpha_bar) is that of DDIM."""
    denoiser, ours = tiny_denoiser(), EgoMotionSDEScheduler(timestep_spacing="trailing", eta=0.0)
    theirs = kind.from_config(ours.config, timestep_spacing="trailing")
    noise = torch.randn(1, 9, 226)
    kept, levels = [], []

    def on_step(index, timestep, latents):
        return kept.append(timestep)

    denoiser.register_forward_pre_hook(lambda module, inputs: levels.append(int(inputs[1])))
    expected = sample_latents(denoiser, ours, head(9), num_inference_steps=5, latents=noise)
    theirs.set_timesteps(5)
    start = noise * theirs.init_noise_sigma
    result = sample_latents(denoiser, theirs, head(9), num_inference_steps=5, latents=start, on_step=on_step)
    assert kept == [999, 799, 599, 399, 199]
    assert levels == [1000, 800, 600, 400, 200] * 2
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_a_trembling_head_shakes_the_head_and_not_the_body():
    """A head that turns to and fro by a degree in every frame, over a body in the rest pose."""
    frames, skeleton = 40, Skeleton.default()
    poses = head_poses(frames)
    tremble = roma.rotvec_to_rotmat(
        torch.deg2rad(torch.tensor([1.0, -1.0])).repeat(frames // 2)[:, None] * torch.eye(3)[0]
    )
    trembling = HeadPoses.from_world(poses[:, :3, :3] @ tremble, poses[:, :3, 3])
    rest = torch.eye(3).expand(1, frames, 21, 3, 3)
    state = MotionState(torch.zeros(1, frames, 16), rest, torch.zeros(1, frames, 21), None)
    steady = steady_neck(skeleton, state, trembling, 1.0)
    before, after = hang_body(skeleton, state, trembling), hang_body(skeleton, steady, trembling)

    def shaking(body):
        return float(body.joints[..., :NECK, :].diff(n=2, dim=1).norm(dim=-1).mean())

    # What is left is the head joint itself, which swings about the eyes.
    assert shaking(after) < 0.15 * shaking(before)
    torch.testing.assert_close(after.rotmats[..., HEAD, :, :], before.rotmats[..., HEAD, :, :], atol=1e-5, rtol=0)
    torch.testing.assert_close(after.joints[..., HEAD, :], before.joints[..., HEAD, :], atol=1e-5, rtol=0)
    unchanged = [joint - 1 for joint in range(1, 22) if joint != HEAD]
    assert steady.body_rotmats[..., unchanged, :, :].equal(state.body_rotmats[..., unchanged, :, :])


def test_canonical_windows_do_not_see_where_the_recording_began():
    """EgoEgo-style conditioning: each window's features are those of that window alone, wherever and whichever way the
    wearer set out, so that a later window is like any that the network was trained on."""
    torch.manual_seed(0)
    denoiser = tiny_denoiser(cond_param="canonicalized", rotation_representation="6d")
    poses, scheduler, seen = head(40), EgoMotionSDEScheduler(eta=0.0), []

    def recover(trajectory: HeadPoses) -> torch.Tensor:
        options = {"num_inference_steps": 2, "window": 16, "overlap": 4, "generator": seeded()}
        return sample_latents(denoiser, scheduler, trajectory, **options)

    denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    motion = recover(poses)
    turn = yaw_rotation(torch.tensor(2.1))
    moved = HeadPoses.from_world(turn @ poses.R_world_cpf, poses.p_world_cpf @ turn.mT + torch.tensor([3.0, -5.0, 0.0]))
    torch.testing.assert_close(recover(moved), motion, rtol=0, atol=1e-4)
    alone = [denoiser.condition(poses.window(start, start + 16)) for start in (0, 12, 24)]
    torch.testing.assert_close(seen[0], torch.stack(alone), rtol=0, atol=1e-5)
    whole = denoiser.condition(poses)
    assert (whole[24:40] - alone[2]).abs().max() > 0.1
