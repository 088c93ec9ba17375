"""The pipeline: any length, reproducible samples, the body under the head, and saving and loading."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler, HeadTrajectory, Motion
from motion_grpo.body import cpf_of
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.models import EgoMotionDenoiser
from tests.inference.setup import pipeline, seeded
from tests.tiny import head_poses, head_trajectory, tiny_denoiser

D = 163  # numbers of a frame: 16 betas, 21 rotations of 6, 21 contacts


def cpf(motion: Motion) -> tuple[torch.Tensor, torch.Tensor]:
    return cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))


@pytest.fixture(scope="module")
def pipe() -> EgoMotionPipeline:
    return pipeline()


class TestCall:
    @pytest.mark.parametrize("frames", [2, 3, 97, 128, 129, 500])
    def test_any_length_hangs_from_the_head(self, pipe, frames):
        trajectory = head_trajectory(frames)
        output = pipe(trajectory, num_samples=2, num_inference_steps=2, generator=seeded())
        assert len(output.motions) == 2
        assert output.latents.shape == (2, frames, D)
        for motion in output.motions:
            assert len(motion) == frames
            R, p = cpf(motion)
            torch.testing.assert_close(R, trajectory.R_world_cpf, rtol=0, atol=1e-4)
            torch.testing.assert_close(p, trajectory.p_world_cpf, rtol=0, atol=1e-4)
            assert motion.betas.shape == (16,)
            assert 0 <= motion.contacts.min() <= motion.contacts.max() <= 1
            torch.testing.assert_close(motion.timestamps, trajectory.timestamps)
        assert (output.motions[0].joints - output.motions[1].joints).abs().max() > 1e-3

    def test_body_is_the_mean_of_the_predicted_shapes_and_the_predicted_pose(self):
        output = pipeline(rotation_representation="matrix")(head_trajectory(20), generator=seeded())
        torch.testing.assert_close(output.motion.betas, output.latents[0, :, :16].mean(0))
        rotmats = output.latents[0, :, 16 : 16 + 189].unflatten(1, (21, 3, 3))
        torch.testing.assert_close(output.motion.body_rotmats, rotmats)
        contacts = output.latents[0, :, 205:226]
        torch.testing.assert_close(output.motion.contacts, contacts.clamp(0, 1))
        assert not torch.equal(contacts, contacts.clamp(0, 1))  # an untrained network leaves [0, 1]
        assert output.motion.hand_rotmats is None

    def test_hands_where_the_network_has_them(self):
        motion = pipeline(include_hands=True)(head_trajectory(5), generator=seeded()).motion
        assert motion.hand_rotmats.shape == (5, 30, 3, 3)
        assert motion.joints.shape == (5, 52, 3)

    def test_resampled_by_timestamp(self, pipe):
        fast = head_trajectory(121, fps=60.0)
        output = pipe(fast, generator=seeded())
        R, p = cpf(output.motion)
        expected = head_trajectory(61)
        assert len(output.motion) == len(output.trajectory) == 61
        torch.testing.assert_close(R, expected.R_world_cpf, rtol=0, atol=1e-4)
        torch.testing.assert_close(p, expected.p_world_cpf, rtol=0, atol=1e-4)
        assert output.motion.fps == pytest.approx(30)

    def test_floor_is_taken_off_and_put_back(self, pipe):
        low = pipe(head_trajectory(20, floor_height=0.0), generator=seeded())
        high = pipe(head_trajectory(20, floor_height=1.0), generator=seeded())
        torch.testing.assert_close(low.latents, high.latents, rtol=0, atol=1e-4)
        up = torch.tensor([0.0, 0.0, 1.0])
        torch.testing.assert_close(low.motion.joints + up, high.motion.joints, rtol=0, atol=1e-3)
        torch.testing.assert_close(cpf(high.motion)[1], head_trajectory(20, floor_height=1.0).p_world_cpf)
        assert (low.motion.floor_height, high.motion.floor_height) == (0.0, 1.0)
        # A body that has the floor elsewhere under the same head is another one.
        trajectory = head_trajectory(20)
        moved = HeadTrajectory.from_matrices(head_poses(20), fps=30.0, floor_height=0.4)
        assert not torch.allclose(pipe(trajectory, generator=seeded()).latents, pipe(moved, generator=seeded()).latents)

    def test_arrays_and_files_are_trajectories_too(self, pipe, tmp_path):
        poses = head_poses(20)
        T = torch.cat([matrix_to_wxyz(poses[:, :3, :3]), poses[:, :3, 3]], dim=1)
        table = np.concatenate([np.arange(20)[:, None] / 30, T[:, 4:], T[:, [1, 2, 3, 0]]], axis=1)
        path = tmp_path / "head.csv"
        np.savetxt(path, table, delimiter=",", header="timestamp,x,y,z,qx,qy,qz,qw", comments="", fmt="%.9f")
        # The floor is estimated from the head, the same way in all four.
        expected, *others = (
            pipe(given, generator=seeded()).motion.joints for given in (poses, poses.numpy(), T.double(), str(path))
        )
        for other in others:
            torch.testing.assert_close(other, expected, rtol=0, atol=2e-3)
        assert pipe(path, generator=seeded()).trajectory.source == str(path)

    def test_latents_only(self, pipe):
        output = pipe(head_trajectory(9), output_type="latent", num_samples=2, generator=seeded())
        assert output.motions is None
        assert output.latents.shape == (2, 9, D)
        with pytest.raises(ValueError, match="output_type='motion'"):
            _ = output.motion

    def test_as_a_tuple(self, pipe):
        motions, latents, trajectory = pipe(head_trajectory(9), return_dict=False, generator=seeded())
        assert torch.equal(latents, pipe(head_trajectory(9), generator=seeded()).latents)
        assert (len(motions), len(trajectory)) == (1, 9)

    def test_a_list_of_recordings_is_a_batch(self, pipe):
        recordings = [head_trajectory(9), head_trajectory(30, floor_height=0.5), head_trajectory(12)]
        singles = [pipe(one, num_samples=2, generator=seeded(i)) for i, one in enumerate(recordings)]
        batch = pipe(recordings, num_samples=2, generator=[seeded(i) for i in range(3)])
        assert [len(motion) for motion in batch.motions] == [9, 9, 30, 30, 12, 12]
        for i, single in enumerate(singles):
            assert torch.equal(batch.latents[i], single.latents)
            assert batch.trajectory[i].p_world_cpf.equal(single.trajectory.p_world_cpf)
            for motion, alone in zip(batch.motions[2 * i : 2 * i + 2], single.motions, strict=True):
                assert torch.equal(motion.joints, alone.joints)
        assert batch.motion is batch.motions[0]
        # One generator serves them in turn, as it serves calls.
        generator = seeded(7)
        turns = [pipe(one, generator=generator).latents for one in recordings]
        for latents, alone in zip(pipe(recordings, generator=seeded(7)).latents, turns, strict=True):
            assert torch.equal(latents, alone)

    def test_a_batch_takes_files_and_arrays_and_starts(self, pipe):
        poses = head_poses(9)
        start = torch.randn(1, 9, D, generator=seeded())
        motions, latents, _ = pipe([poses, poses.numpy()], eta=0.0, latents=[start, start], return_dict=False)
        # Of one length they are one batch, as diffusers' own tests want it.
        assert latents.shape == (2, 9, D)
        assert torch.equal(*latents)
        assert len(motions) == 2
        output = pipe([poses, poses], output_type="latent")
        assert output.motions is None

    def test_a_batch_that_does_not_fit_is_refused(self, pipe):
        two = [head_trajectory(9)] * 2
        with pytest.raises(ValueError, match="list of recordings is empty"):
            pipe([])
        with pytest.raises(ValueError, match="1 generators for 2 recordings"):
            pipe(two, generator=[seeded()])
        with pytest.raises(ValueError, match="no list of latents for 2 recordings"):
            pipe(two, latents=torch.zeros(1, 9, D))
        with pytest.raises(ValueError, match="no head trajectory"):
            pipe([np.eye(4), np.eye(4)])

    def test_no_gradients(self, pipe):
        assert not pipe(head_trajectory(5)).motion.joints.requires_grad


class TestRandomness:
    def test_a_sample_depends_on_seed_and_number_only(self):
        pipe, trajectory = pipeline(window=16, overlap=4), head_trajectory(30)
        first = pipe(trajectory, generator=seeded(3)).latents
        many = pipe(trajectory, num_samples=5, generator=seeded(3)).latents
        torch.testing.assert_close(many[:1], first, rtol=0, atol=1e-5)
        for size in (1, 2, 3, 100):
            again = pipe(trajectory, num_samples=4, generator=seeded(3), window_batch_size=size).latents
            torch.testing.assert_close(again, many[:4], rtol=0, atol=1e-5)
        gaps = (many[:, None] - many[None]).abs().amax((-1, -2))
        assert gaps[~torch.eye(5, dtype=torch.bool)].min() > 1e-3
        assert (pipe(trajectory, generator=seeded(4)).latents - first).abs().max() > 1e-3

    def test_same_seed_same_bits(self, pipe):
        a, b = (pipe(head_trajectory(9), num_samples=2, generator=seeded()).latents for _ in range(2))
        assert torch.equal(a, b)

    def test_global_generator(self, pipe):
        torch.manual_seed(5)
        a, b = pipe(head_trajectory(9)).latents, pipe(head_trajectory(9)).latents
        torch.manual_seed(5)
        assert torch.equal(pipe(head_trajectory(9)).latents, a)
        assert not torch.equal(a, b)

    def test_one_generator_a_sample(self, pipe):
        trajectory = head_trajectory(9)
        both = pipe(trajectory, num_samples=2, generator=[seeded(1), seeded(2)]).latents
        swapped = pipe(trajectory, num_samples=2, generator=[seeded(2), seeded(1)]).latents
        torch.testing.assert_close(both, swapped.flip(0), rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="1 generators for 2 samples"):
            pipe(trajectory, num_samples=2, generator=[seeded(1)])

    def test_without_noise_the_start_decides(self, pipe):
        start = torch.randn(1, 9, D, generator=seeded())
        a, b = (pipe(head_trajectory(9), eta=0.0, latents=start, generator=seeded(s)).latents for s in (1, 2))
        assert torch.equal(a, b)
        noisy = pipe(head_trajectory(9), eta=1.0, latents=start, generator=seeded(1)).latents
        assert (noisy - a).abs().max() > 1e-3

    def test_a_temperature_scales_the_noise_to_start_from(self, pipe):
        options = {"num_samples": 2, "eta": 0.0}
        drawn = [torch.Generator().manual_seed(number) for number in (5, 6)]
        start = torch.stack([torch.randn(9, D, generator=g) for g in drawn])
        again = [torch.Generator().manual_seed(number) for number in (5, 6)]
        warm = pipe(head_trajectory(9), temperature=1.5, generator=again, **options).latents
        torch.testing.assert_close(warm, pipe(head_trajectory(9), latents=1.5 * start, **options).latents)
        with pytest.raises(ValueError, match=r"temperature must be a number above 0, got 0\.0"):
            pipe(head_trajectory(9), temperature=0.0)


class TestCallback:
    def test_is_told_the_step_and_may_change_the_latents(self, pipe):
        seen = []

        def callback(caller, step, timestep, tensors):
            assert caller is pipe
            seen.append((step, timestep, tuple(tensors["latents"].shape), list(tensors)))
            return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else {}

        output = pipe(
            head_trajectory(9), num_samples=2, output_type="latent", callback_on_step_end=callback, generator=seeded()
        )
        assert seen == [(i, t, (2, 9, D), ["latents"]) for i, t in enumerate((1000, 400, 100))]
        assert output.latents.eq(0).all()

    def test_may_return_nothing(self, pipe):
        quiet = pipe(head_trajectory(9), callback_on_step_end=lambda *args: None, generator=seeded()).latents
        assert torch.equal(quiet, pipe(head_trajectory(9), generator=seeded()).latents)

    def test_change_in_the_middle_is_gone_on_from(self, pipe):
        start = torch.randn(1, 9, D, generator=seeded())

        def shift(p, step, t, x):
            return {"latents": x["latents"] + 0.5} if step == 0 else {}

        plain = pipe(head_trajectory(9), eta=0.0, latents=start).latents
        moved = pipe(head_trajectory(9), eta=0.0, latents=start, callback_on_step_end=shift).latents
        assert (plain - moved).abs().max() > 1e-4


def test_encoder_runs_once_a_call(monkeypatch):
    calls = []
    original = EgoMotionDenoiser.encode

    def encode(self, cond, noise_level=None, mask=None):
        calls.append(len(cond))
        return original(self, cond, noise_level, mask)

    monkeypatch.setattr(EgoMotionDenoiser, "encode", encode)
    pipeline(steps=4)(head_trajectory(128 + 96), num_samples=3)
    assert calls == [2]  # two windows of 128 frames together, once; not 4 steps times 3 samples
    calls.clear()
    pipeline(steps=4, noise_in_encoder=True)(head_trajectory(50))
    assert calls == [1] * 4


class TestSchedulersOfDiffusers:
    @pytest.mark.parametrize(
        "kind",
        [DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, DDPMScheduler, EulerDiscreteScheduler],
    )
    def test_drop_in(self, kind):
        pipe = pipeline(steps=4)
        pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        output = pipe(head_trajectory(20), num_samples=2, generator=seeded())
        for motion in output.motions:
            assert motion.joints.isfinite().all()
            torch.testing.assert_close(cpf(motion)[1], head_trajectory(20).p_world_cpf, rtol=0, atol=1e-4)
        again = pipe(head_trajectory(20), generator=seeded()).latents
        torch.testing.assert_close(again, output.latents[:1], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("eta", [0.0, 0.7])
    def test_ddim_is_ours(self, eta):
        pipe = pipeline(EgoMotionSDEScheduler(timestep_spacing="trailing"), steps=5)
        ours = pipe(head_trajectory(20), eta=eta, generator=seeded()).latents
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        theirs = pipe(head_trajectory(20), eta=eta, generator=seeded()).latents
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)

    def test_one_that_does_not_fit_is_refused(self, tmp_path):
        """Wherever it comes from: given at the start, set later, or stored."""
        pipe = pipeline()
        message = "IPNDMScheduler cannot sample with this denoiser"
        with pytest.raises(ValueError, match=message):
            EgoMotionPipeline(pipe.denoiser, IPNDMScheduler())
        pipe.scheduler = IPNDMScheduler.from_config(pipe.scheduler.config)
        with pytest.raises(ValueError, match=message):
            pipe(head_trajectory(9))
        pipe.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            EgoMotionPipeline.from_pretrained(tmp_path)

    def test_first_order_dpm_solver_is_ours_without_noise(self):
        pipe = pipeline(EgoMotionSDEScheduler(timestep_spacing="trailing", eta=0.0), steps=5)
        start = torch.randn(1, 9, D, generator=seeded())
        ours = pipe(head_trajectory(9), latents=start).latents
        config = {"timestep_spacing": "trailing", "solver_order": 1}
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, **config)
        torch.testing.assert_close(pipe(head_trajectory(9), latents=start).latents, ours, rtol=0, atol=1e-4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
            ({"num_inference_steps": 0}, "num_inference_steps must be .* got 0"),
            ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
            ({"window_batch_size": 0}, "window_batch_size must be .* got 0"),
            ({"eta": -0.1}, "eta must be a number of at least 0, got -0.1"),
            ({"latents": torch.zeros(1, 8, D)}, r"\(1, 8, 163\).*\(1, 9, 163\)"),
        ],
    )
    def test_options(self, pipe, options, message):
        with pytest.raises(ValueError, match=message):
            pipe(head_trajectory(9), **options)

    @pytest.mark.parametrize("shape", [(9, 3), (9, 3, 4), (9, 16), (7,), (1, 9, 7)])
    def test_shapes_that_are_no_poses(self, pipe, shape):
        with pytest.raises(ValueError, match=r"no head trajectory; give \(frames, 7\)"):
            pipe(np.ones(shape, dtype=np.float32))

    def test_remedies_are_of_the_call(self, pipe):
        with pytest.warns(UserWarning, match=r"pipe\(HeadTrajectory.from_convention\(poses, fps=30, floor_height"):
            pipe(head_poses(9))

    def test_one_pose(self, pipe):
        with pytest.raises(ValueError, match="at least 2 poses"):
            pipe(head_poses(1))

    def test_less_than_two_frames_at_30_fps(self, pipe):
        with pytest.raises(ValueError, match="lasts less than two frames at 30 fps"):
            pipe(head_trajectory(3, fps=90.0))

    def test_a_missing_file(self, pipe, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
            pipe(tmp_path / "nowhere.csv")

    @pytest.mark.parametrize("overlap", [0, 16, 20])
    def test_overlaps_that_leave_no_window(self, overlap):
        with pytest.raises(ValueError, match=f"overlap is {overlap} and window 16"):
            pipeline(window=16, overlap=overlap)

    def test_an_unknown_stitching(self):
        with pytest.raises(ValueError, match="stitching is 'glue'; choose one of crossfade, egoallo"):
            EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), stitching="glue")
