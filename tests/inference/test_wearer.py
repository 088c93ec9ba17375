"""What a call knows of the wearer: wrists reach the network as they were seen, a known body is the motion's body."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler, HandObservations
from motion_grpo.body import Skeleton
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.trajectory import HeadTrajectory
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import tiny_pipeline
from tests.trajectory.readers.test_hands import write_csv
from tests.trajectory.test_hand_observations import everywhere, poses, recording

FRAMES = 40
LATENT = {"output_type": "latent", "num_inference_steps": 3}


def pipeline(scheduler=None, **network) -> EgoMotionPipeline:
    """A network that reads wrists and the wearer's size, unless changed."""
    torch.manual_seed(0)
    pipe = tiny_pipeline(**{"include_wrists_cond": True, "include_body_cond": True} | network)
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = scheduler
    return pipe


@pytest.fixture(scope="module")
def pipe() -> EgoMotionPipeline:
    return pipeline()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def latents(pipe: EgoMotionPipeline, head: HeadTrajectory, **known) -> torch.Tensor:
    return pipe(head, generator=seeded(), **LATENT, **known).latents


def conditions(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The features of every call from now on."""
    seen = []
    original = EgoMotionDenoiser.condition

    def condition(self, *args, **kwargs):
        seen.append(original(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(EgoMotionDenoiser, "condition", condition)
    return seen


class TestWrists:
    def test_change_the_features_of_the_frames_that_saw_them(self, pipe, monkeypatch):
        head, T = recording(FRAMES)
        visible = ~everywhere(FRAMES)
        visible[12:20, 0] = visible[30:, 1] = True
        seen = conditions(monkeypatch)
        latents(pipe, head, hands=HandObservations.from_world(T, visible=visible))
        latents(pipe, head)
        changed = (seen[0] != seen[1]).any(-1)
        assert torch.equal(changed, torch.from_numpy(visible.any(1)))

    def test_change_the_motion(self, pipe):
        head, T = recording(FRAMES)
        known = latents(pipe, head, hands=HandObservations.from_world(T, visible=everywhere(FRAMES)))
        assert (known - latents(pipe, head)).abs().max() > 1e-4
        none = latents(pipe, head, hands=HandObservations.from_world(T, visible=~everywhere(FRAMES)))
        assert torch.equal(none, latents(pipe, head))

    def test_hidden_ones_do_not_matter(self, pipe):
        head, T = recording(FRAMES)
        visible = everywhere(FRAMES)
        visible[5:25, 1] = visible[33:, 0] = False
        other = T.clone()
        other[~torch.from_numpy(visible)] = torch.nan
        a, b = (latents(pipe, head, hands=HandObservations.from_world(x, visible=visible)) for x in (T, other))
        assert torch.equal(a, b)
        assert a.isfinite().all()

    def test_in_the_world_or_from_the_head(self, pipe):
        head, T = recording(FRAMES)
        relative = torch.linalg.inv(poses(head.R_world_cpf, head.p_world_cpf))[:, None] @ T
        world = HandObservations.from_world(T, visible=everywhere(FRAMES))
        cpf = HandObservations.from_cpf(relative, head, visible=everywhere(FRAMES))
        torch.testing.assert_close(latents(pipe, head, hands=world), latents(pipe, head, hands=cpf), rtol=0, atol=1e-4)

    def test_where_the_floor_is_plays_no_part(self, pipe):
        head, T = recording(FRAMES)
        low = latents(pipe, head, hands=HandObservations.from_world(T, visible=everywhere(FRAMES)))
        up = torch.tensor([0.0, 0.0, 1.0])
        raised = poses(head.R_world_cpf, head.p_world_cpf + up)
        raised = HeadTrajectory.from_matrices(raised, timestamps=head.timestamps, floor_height=1.0)
        T[..., 2, 3] += 1.0
        high = latents(pipe, raised, hands=HandObservations.from_world(T, visible=everywhere(FRAMES)))
        torch.testing.assert_close(low, high, rtol=0, atol=1e-4)

    def test_are_resampled_with_the_head(self, pipe, monkeypatch):
        head, T = recording(FRAMES)
        times = torch.linspace(5, head.timestamps[-1].item(), 8 * FRAMES, dtype=torch.float64)
        fast = HandObservations.from_world(T, visible=everywhere(FRAMES), timestamps=head.timestamps).at(times)
        seen = conditions(monkeypatch)
        latents(pipe, head, hands=fast)
        latents(pipe, head, hands=HandObservations.from_world(T, visible=everywhere(FRAMES)))
        torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-2)
        # By frame: one for each pose of the recording, which has another rate than the network.
        slow = HeadTrajectory.from_matrices(poses(head.R_world_cpf, head.p_world_cpf), fps=15, floor_height=0.0)
        assert latents(pipe, slow, hands=HandObservations.from_world(T, visible=everywhere(FRAMES))).shape[1] == 79

    def test_reach_a_network_that_reads_positions(self, monkeypatch):
        """EgoAllo's: 6 numbers a frame, zeros where a wrist was not seen."""
        pipe = pipeline(include_wrists_cond=False, include_body_cond=False, include_hand_positions_cond=True)
        head, T = recording(FRAMES)
        visible = everywhere(FRAMES)
        visible[20:, 1] = False
        seen = conditions(monkeypatch)
        latents(pipe, head, hands=HandObservations.from_world(T, visible=visible))
        R, p = head.R_world_cpf, head.p_world_cpf
        expected = (R.mT[:, None] @ (T[..., :3, 3] - p[:, None])[..., None]).squeeze(-1)
        expected[20:, 1] = 0
        floored = HeadPoses.from_world(R, p)
        torch.testing.assert_close(seen[0], pipe.denoiser.condition(floored, expected.flatten(1)), rtol=0, atol=1e-5)

    def test_from_a_file(self, pipe, tmp_path):
        head, T = recording(FRAMES)
        path = write_csv(tmp_path / "walk.csv", head, T, everywhere(FRAMES))
        hands = HandObservations.from_world(T, visible=everywhere(FRAMES))
        by_path = pipe(path, hands=path, generator=seeded(), **LATENT)
        expected = pipe(by_path.trajectory, hands=hands, generator=seeded(), **LATENT)
        torch.testing.assert_close(by_path.latents, expected.latents, rtol=0, atol=1e-4)

    def test_each_window_is_told_of_its_own_frames(self):
        """Frames far from the only ones that saw a wrist, in windows of 16, are what they are without."""
        pipe = pipeline(window=16)
        head, T = recording(60)
        visible = ~everywhere(60)
        visible[50:] = True
        hands = HandObservations.from_world(T, visible=visible)
        # One step: over several, what one window makes of its frames is the start of the next one's.
        with_hands, without = (
            pipe(head, hands=known, generator=seeded(), num_inference_steps=1, output_type="latent").latents
            for known in (hands, None)
        )
        same = (with_hands == without).all(-1)[0]
        # Windows start every 12 frames; the first that holds frame 50 begins at 36.
        assert same[:36].all()
        assert not same[48:].any()

    def test_a_network_that_reads_none(self):
        head, T = recording(FRAMES)
        with pytest.raises(ValueError, match="This network reads no wrists"):
            pipeline(include_wrists_cond=False)(head, hands=HandObservations.from_world(T, visible=everywhere(FRAMES)))

    def test_bare_arrays_have_no_flags(self, pipe):
        head, T = recording(FRAMES)
        for array in (T, T.numpy()):
            with pytest.raises(ValueError, match=r"without a flag that says when each wrist was seen; give HandObs"):
                pipe(head, hands=array)

    def test_of_another_length_or_recording(self, pipe):
        head, T = recording(FRAMES)
        with pytest.raises(ValueError, match=r"have 30 frames and the head of array has 40"):
            pipe(head, hands=HandObservations.from_world(T[:30], visible=everywhere(30)))
        late = HandObservations.from_world(T, visible=everywhere(FRAMES), timestamps=head.timestamps + 60)
        with pytest.raises(ValueError, match="outside of the recording"):
            pipe(head, hands=late)

    def test_swapped_sides_warn(self, pipe):
        head, T = recording(FRAMES)
        with pytest.warns(UserWarning, match="look swapped"):
            latents(pipe, head, hands=HandObservations.from_world(T.flip(1), visible=everywhere(FRAMES)))


class TestListOfRecordings:
    def test_what_is_known_of_each(self, pipe):
        """As calls of their own."""
        head, T = recording(FRAMES)
        heads = [head, head[:30], head[5:]]
        hands = [HandObservations.from_world(T, visible=everywhere(FRAMES)), None, None]
        known = {"hands": hands, "betas": [None, np.full(3, 0.5), None], "stature": [1.6, None, None]}
        batch = pipe(heads, generator=[seeded() for _ in heads], num_inference_steps=2, **known)
        for i, one in enumerate(heads):
            own = {name: values[i] for name, values in known.items()}
            alone = pipe(one, generator=seeded(), num_inference_steps=2, **own)
            assert torch.equal(batch.latents[i], alone.latents)
            assert torch.equal(batch.motions[i].betas, alone.motion.betas)

    @pytest.mark.parametrize("known", [{"stature": 1.6}, {"betas": [1.0, 0.5]}, {"betas": torch.tensor([1.0, 0.5])}])
    def test_one_body_for_all(self, pipe, known):
        head, _ = recording(10)
        motions = pipe([head, head[2:]], num_inference_steps=1, **known).motions
        expected = pipe(head, num_inference_steps=1, **known).motion.betas
        assert all(torch.equal(motion.betas, expected) for motion in motions)

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            ({"hands": "walk.csv"}, "no list of hands for 2 recordings"),
            ({"hands": [None]}, "1 hands for 2 recordings"),
            ({"stature": [1.7]}, "1 statures for 2 recordings"),
            ({"betas": [np.zeros(16)]}, "1 betas for 2 recordings"),
            ({"betas": [np.zeros(16), None], "stature": 1.7}, "Both betas and stature"),
        ],
    )
    def test_what_does_not_fit(self, pipe, known, message):
        head, _ = recording(10)
        with pytest.raises(ValueError, match=message):
            pipe([head, head], **known)

    def test_a_list_of_statures_is_not_for_one(self, pipe):
        with pytest.raises(ValueError, match=r"stature is \[1\.7\]; give one height"):
            pipe(recording(10)[0], stature=[1.7])


SCHEDULERS = [
    lambda config: EgoMotionSDEScheduler(eta=1.0),
    lambda config: EgoMotionSDEScheduler(eta=0.0),
    lambda config: EgoMotionSDEScheduler.egoallo(),
    lambda config: DDIMScheduler.from_config(config, timestep_spacing="trailing"),
    lambda config: DDPMScheduler.from_config(config, timestep_spacing="trailing"),
    lambda config: DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing"),
    lambda config: DPMSolverMultistepScheduler.from_config(
        config, timestep_spacing="trailing", final_sigmas_type="sigma_min"
    ),
    lambda config: UniPCMultistepScheduler.from_config(config, timestep_spacing="trailing"),
]


class TestBody:
    @pytest.mark.parametrize("rotations", ["matrix", "6d"])
    @pytest.mark.parametrize("make", SCHEDULERS)
    def test_betas_are_held(self, make, rotations):
        pipe = pipeline(rotation_representation=rotations)
        pipe.scheduler = make(pipe.scheduler.config)
        head, _ = recording(FRAMES)
        betas = torch.randn(16, generator=seeded())
        output = pipe(head, betas=betas, num_samples=2, num_inference_steps=10, generator=seeded())
        assert torch.equal(output.latents[..., :16], betas.expand(2, FRAMES, 16))
        for motion in output.motions:
            assert torch.equal(motion.betas, betas)

    def test_every_step_heads_for_them(self):
        """Not only the last: between steps the state's betas are noisy versions of the given ones."""
        pipe = pipeline(EgoMotionSDEScheduler(eta=0.0))
        head, _ = recording(FRAMES)
        betas = torch.full((16,), 5.0)
        at_step = []

        def callback(caller, step, timestep, tensors):
            at_step.append(tensors["latents"][..., :16].mean().item())
            return {}

        pipe(head, betas=betas, callback_on_step_end=callback, generator=seeded(), num_inference_steps=4)
        levels = pipe.scheduler.levels[1:]
        expected = 5.0 * pipe.scheduler.alpha_bars[levels].sqrt()
        np.testing.assert_allclose(at_step, expected, atol=0.05)

    def test_what_a_callback_does_to_them_is_undone(self):
        head, _ = recording(FRAMES)
        output = pipeline()(
            head, betas=[1.0], callback_on_step_end=lambda p, i, t, x: {"latents": x["latents"] + 1}, **LATENT
        )
        assert output.latents[..., 0].eq(1).all()
        assert output.latents[..., 1:16].eq(0).all()

    def test_the_network_is_told(self, pipe, monkeypatch):
        head, _ = recording(FRAMES)
        seen = conditions(monkeypatch)
        betas = torch.randn(16, generator=seeded())
        latents(pipe, head, betas=betas)
        torch.testing.assert_close(seen[0][:, -4:-1], Skeleton.default().measures(betas).expand(FRAMES, 3))
        assert seen[0][:, -1].eq(1).all()
        latents(pipe, head)
        assert seen[1][:, -4:].eq(0).all()

    @pytest.mark.parametrize("stature", [1.6, 1.75, 1.9])
    def test_stature_gives_the_legs_of_that_body(self, pipe, stature):
        head, _ = recording(FRAMES)
        motion = pipe(head, stature=stature, num_inference_steps=2, generator=seeded()).motion
        body = Skeleton.default()
        expected = body.betas_of_stature(stature)
        assert torch.equal(motion.betas, expected)
        joints = motion.joints
        legs = sum((joints[:, a] - joints[:, b]).norm(dim=-1).mean() for a, b in ((1, 4), (4, 7))).item()
        rest = body.rest_joints(expected)
        assert legs == pytest.approx(sum((rest[a] - rest[b]).norm().item() for a, b in ((1, 4), (4, 7))), rel=1e-3)
        assert legs / stature == pytest.approx(0.46, abs=0.02)

    def test_betas_of_the_first_few(self, pipe):
        head, _ = recording(FRAMES)
        few, padded = ([0.5, -1.0], [0.5, -1.0] + [0.0] * 14)
        assert torch.equal(latents(pipe, head, betas=few), latents(pipe, head, betas=np.array(padded)))

    def test_a_network_that_reads_no_size_keeps_it_too(self):
        head, _ = recording(FRAMES)
        motion = pipeline(include_body_cond=False)(head, stature=1.9, num_inference_steps=2, generator=seeded()).motion
        assert torch.equal(motion.betas, Skeleton.default().betas_of_stature(1.9))

    def test_the_floor_stays(self, pipe):
        head, _ = recording(FRAMES)
        up = poses(head.R_world_cpf, head.p_world_cpf + torch.tensor([0.0, 0.0, 0.3]))
        head = HeadTrajectory.from_matrices(up, timestamps=head.timestamps, floor_height=0.3)
        output = pipe(head, stature=1.5, num_inference_steps=2, generator=seeded())
        assert output.trajectory.floor_height == output.motion.floor_height == pytest.approx(0.3)

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            ({"stature": 175}, r"stature must be 0\.8 to 2\.5 m, got 175"),
            ({"stature": 0.0}, r"stature must be .* got 0;"),
            ({"stature": float("nan")}, r"stature must be .* got nan;"),
            ({"betas": np.zeros(17)}, r"betas have the shape \(17,\); give one body's, \(16,\)"),
            ({"betas": np.zeros((40, 16))}, r"betas have the shape \(40, 16\)"),
            ({"betas": []}, r"betas have the shape \(0,\)"),
            ({"betas": [0.0, float("nan")]}, r"betas hold a NaN"),
            ({"betas": np.zeros(16), "stature": 1.75}, r"Both betas and stature are given"),
        ],
    )
    def test_bad_input(self, pipe, known, message):
        head, _ = recording(5)
        with pytest.raises(ValueError, match=message):
            pipe(head, **known)

    def test_statures_beyond_the_body_model_warn(self, pipe):
        head, _ = recording(5)
        with pytest.warns(UserWarning, match=r"stature of 1\.2 m lies outside of the 1\.42 to 2\.02 m"):
            latents(pipe, head, stature=1.2)
