"""What the critic's trainer holds against recordings: made-up motion, noise, artefacts."""

from collections import Counter

import pytest
import roma
import torch
from torch import nn

from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.inference.rollout import rollout
from motion_grpo.motion import MotionState
from motion_grpo.motion.artefacts import ARTEFACTS
from motion_grpo.training import perceptual as perceptual_module
from tests.tiny import moving_clip, tiny_pipeline
from tests.training.perceptual_setup import Critic, batch_of, recorded, trainer_of, weights

HEAD = 14  # among the 21 joints without the root


def watched(network: nn.Module) -> list[int]:
    """Rows of every call of the network from now on."""
    calls: list[int] = []
    network.register_forward_hook(lambda module, args, output: calls.append(len(output[0])))
    return calls


class TestNegatives:
    def test_a_batch_is_one_sampling_call_a_policy(self, tmp_path):
        policies = [tiny_pipeline(4), tiny_pipeline(2, eta=0.0), tiny_pipeline(7)]
        trainer = trainer_of(tmp_path, policies=policies, num_negatives=5, last_steps=3)
        calls = [watched(policy.denoiser) for policy in policies]
        contrast = trainer._make_contrast(batch_of(trainer, 0, 1))
        # 5 = 2 + 2 + 1 negatives for each of two heads; the policy of two steps repeats one of its choices.
        assert calls == [[4] * 4, [4] * 2, [2] * 7]
        assert contrast.made_up.shape == (3, 2, 5, 12, 21, 7)
        torch.testing.assert_close(contrast.made_up[2, :, 2:4], contrast.made_up[0, :, 2:4], rtol=0, atol=0)
        assert not torch.equal(contrast.made_up[2, :, :2], contrast.made_up[0, :, :2])

    def test_settings_replace_those_of_the_policy(self, tmp_path):
        trainer = trainer_of(tmp_path, num_inference_steps=6, eta=0.0)
        calls = watched(trainer.policies[0].denoiser)
        made_up = trainer._make_contrast(batch_of(trainer, 0, 1)).made_up
        assert calls == [6] * 6
        assert made_up.isfinite().all()

    def test_more_policies_than_negatives(self, tmp_path):
        policies = [tiny_pipeline(), tiny_pipeline()]
        trainer = trainer_of(tmp_path, policies=policies, num_negatives=1)
        calls = [watched(policy.denoiser) for policy in policies]
        assert trainer._make_contrast(batch_of(trainer, 0, 1)).made_up.shape[2] == 1
        assert calls == [[2] * 4, []]

    @pytest.mark.parametrize("last_steps", [1, 3, 9])
    def test_they_are_clean_predictions_of_the_last_steps(self, tmp_path, monkeypatch, last_steps):
        kept = []
        monkeypatch.setattr(perceptual_module, "rollout", lambda *a, **k: kept.append(rollout(*a, **k)) or kept[-1])
        trainer = trainer_of(tmp_path, last_steps=last_steps)
        contrast = trainer._make_contrast(batch_of(trainer, 0, 1))
        clean = kept[0].clean[-last_steps:]
        assert len(contrast.made_up) == len(clean) == min(last_steps, 4)
        for shown, state in zip(contrast.made_up, clean, strict=True):
            poses = MotionState.unpack(state, trainer.policies[0].denoiser.state_layout).body_rotmats
            torch.testing.assert_close(shown.flatten(0, 1)[..., :4], matrix_to_wxyz(poses))

    def test_each_use_draws_anew_which_step_to_show(self, tmp_path):
        trainer = trainer_of(tmp_path, replay=30)
        critic, windows = Critic(torch.rand(2, 4)), batch_of(trainer, 0, 1)
        calls = watched(trainer.policies[0].denoiser)
        for _ in range(30):
            trainer.compute_loss(critic, windows)
        assert len(calls) == 4
        made_up, shown = trainer._contrast.made_up, Counter()
        for joints, _, _ in critic.seen:
            negatives = joints.unflatten(0, (2, 4))[:, 1:]
            same = (made_up == negatives).flatten(-3).all(-1)  # choices, heads, negatives
            assert same.any(0).all()
            shown.update(same.int().argmax(0).flatten().tolist())
        assert all(30 < shown[choice] < 90 for choice in range(3)), shown  # 60 each, standard deviation 6

    def test_a_policy_that_knows_the_truth_makes_the_recording(self, tmp_path):
        """Whatever it drew, the body hangs from the true head; what it says of padded frames does not matter."""
        trainer = trainer_of(tmp_path, [moving_clip(12, 0), moving_clip(8, 1)], mirror_probability=0.0)
        windows, layout = batch_of(trainer, 0, 1), trainer.policies[0].denoiser.state_layout
        truth = trainer._truth(windows)
        betas = truth.state.betas.masked_fill(~truth.mask[..., None], 9.0)
        answer = truth.state._replace(betas=betas).pack(layout).repeat_interleave(3, dim=0)
        trainer.policies[0].denoiser.register_forward_hook(lambda module, args, output: (answer,))
        contrast = trainer._make_contrast(windows)
        real = truth.mask
        torch.testing.assert_close(contrast.joints[real][..., 4:], truth.joints[real][:, 1:])
        for made_up in contrast.made_up.flatten(0, 1).unbind(1):
            for row in range(2):
                ours, theirs = made_up[row, real[row]], contrast.joints[row, real[row]]
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)

    def test_bodies_hang_from_the_head(self, tmp_path):
        """Seen from the central pupil frame the head joint never moves, neither of a drawn nor of a noisy body."""
        for negatives in ("rollout", "gt_noise"):
            trainer = trainer_of(tmp_path, negatives=negatives)
            windows = batch_of(trainer, 0, 1)
            contrast = trainer._make_contrast(windows)
            R_world_cpf = roma.unitquat_to_rotmat(contrast.head[:, None, :, [1, 2, 3, 0]])
            offset = contrast.made_up[..., HEAD, 4:] - contrast.head[:, None, :, 4:]
            local = (R_world_cpf.mT @ offset[..., None]).squeeze(-1)
            torch.testing.assert_close(local, local[..., :1, :].expand_as(local), rtol=0, atol=1e-5)
            assert 0.05 < float(local.norm(dim=-1).mean()) < 0.2
            assert (contrast.made_up - contrast.joints[:, None])[..., 4:].norm(dim=-1).max() > 0.02

    @pytest.mark.parametrize("scale", [0.01, 0.1])
    def test_noise_has_the_stated_spread(self, tmp_path, scale):
        trainer = trainer_of(tmp_path, policies=[], negatives="gt_noise", noise_scale=scale, num_negatives=15)
        contrast = trainer._make_contrast(batch_of(trainer, *range(6)))

        def rotvecs(joints):
            return roma.unitquat_to_rotvec(joints[..., [1, 2, 3, 0]])

        noise = rotvecs(contrast.made_up[0]) - rotvecs(contrast.joints)[:, None]
        assert float(noise.std()) == pytest.approx(scale, rel=0.02)
        # Every parameter of every joint, independently.
        per_parameter = noise.flatten(0, 2).std(0)
        assert per_parameter.min() > 0.9 * scale
        assert per_parameter.max() < 1.1 * scale
        assert abs(float(noise.mean())) < 0.02 * scale
        over_time = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / scale**2
        assert abs(float(over_time)) < 0.02

    def test_ladders_grow(self, tmp_path):
        """Every rung is the same artefact, worse: farther from the recording, in the body or in the head."""
        trainer = trainer_of(tmp_path, num_negatives=5, artefact_negatives=3, artefact_rungs=3)
        truth = trainer._truth(batch_of(trainer, 0, 1, 2))
        recorded = perceptual_module._recorded(truth)
        changed_heads = 0
        for artefact in ARTEFACTS.values():
            ladder = trainer._ladder(truth, artefact)
            assert ladder[0].shape == (3, 3, 12, 21, 7)
            far = sum((x - y[:, None]).abs().flatten(2).mean(-1) for x, y in zip(ladder, recorded, strict=True))
            assert (far > 0).all()
            # Noise of another size, or another share of the way: farther on the whole, if not in every row and number.
            assert (far.diff(dim=1) > 0).float().mean() > 0.6
            changed_heads += bool((ladder[1] - recorded[1][:, None]).abs().max() > 1e-3)
        assert changed_heads == 6  # sinks, hovers, slides, goes too far, not far enough, or is another's

    def test_ladders_of_a_use_are_of_different_kinds(self, tmp_path):
        trainer = trainer_of(tmp_path, num_negatives=8, artefact_negatives=8, artefact_rungs=2)
        uses = [trainer._kinds() for _ in range(60)]
        assert all(len(set(kinds)) == len(kinds) == 4 for kinds in uses)
        counts = Counter(name for kinds in uses for name in kinds)
        assert set(counts) == set(ARTEFACTS)
        assert max(counts.values()) < 40  # 16 each
        more = trainer_of(tmp_path, num_negatives=40, artefact_negatives=40, artefact_rungs=2)
        assert set(Counter(more._kinds()).values()) == {1, 2}

    def test_ladders_take_their_share(self, tmp_path):
        trainer = trainer_of(tmp_path, num_negatives=5, artefact_negatives=4, artefact_rungs=2)
        shown = []
        trainer.model.register_forward_pre_hook(lambda module, args: shown.append(args[0]))
        calls = watched(trainer.policies[0].denoiser)
        contrast = trainer._make_contrast(batch_of(trainer, 0, 1))
        assert contrast.made_up.shape == (3, 2, 1, 12, 21, 7)
        trainer.model.eval()
        first, second = (trainer._scores(trainer.model, contrast) for _ in range(2))
        assert first.shape == (2, 6)
        assert calls == [2] * 4
        # The recording stays, artefacts are made anew at every use.
        assert torch.equal(first[:, 0], second[:, 0])
        assert not torch.equal(shown[0].unflatten(0, (2, 6))[:, 2:], shown[1].unflatten(0, (2, 6))[:, 2:])

    @pytest.mark.parametrize("negatives", ["rollout", "gt_noise"])
    def test_artefacts_alone(self, tmp_path, negatives):
        settings = {"num_negatives": 4, "artefact_negatives": 4, "artefact_rungs": 2, "max_steps": 2}
        trainer = trainer_of(tmp_path, negatives=negatives, **settings)
        calls = watched(trainer.policies[0].denoiser)
        trainer.train()
        assert trainer._contrast.made_up.shape == (1, 2, 0, 12, 21, 7)
        assert calls == []

    def test_the_ranking_is_part_of_the_loss(self, tmp_path):
        trainer = trainer_of(tmp_path, num_negatives=5, artefact_negatives=4, artefact_rungs=2)
        scores = torch.rand(2, 6)
        trainer._scores = lambda model, contrast: scores
        loss = trainer.compute_loss(trainer.model, batch_of(trainer, 0, 1))
        s = scores.double() / trainer.args.temperature
        expected = (s.logsumexp(1) - s[:, 0]).mean()
        # Two ladders for each of two recordings; the recording is above both of their rungs.
        for row in s:
            for rungs in (row[2:4], row[4:6]):
                ladder = torch.cat([row[:1], rungs])
                order = [ladder[first:].logsumexp(0) - ladder[first] for first in range(2)]
                expected = expected + sum(order) / 2 / 4
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)

    def test_policies_stay_as_they_are(self, tmp_path):
        trainer = trainer_of(tmp_path, max_steps=3)
        denoiser = trainer.policies[0].denoiser
        before = weights(denoiser)
        trainer.train()
        assert all(torch.equal(value, before[name]) for name, value in weights(denoiser).items())
        assert not denoiser.training
        assert all(not p.requires_grad and p.grad is None for p in denoiser.parameters())
        assert all(not x.requires_grad for x in trainer._contrast[1:])


class TestReplay:
    def test_negatives_serve_so_many_steps_of_one_batch(self, tmp_path, monkeypatch):
        trainer = trainer_of(tmp_path, max_steps=18, replay=3)  # two epochs of three batches
        steps, made = recorded(trainer, monkeypatch)
        trainer.train()
        assert (len(steps), len(made)) == (18, 6)
        for step, betas in enumerate(steps):
            assert torch.equal(betas, made[step // 3]), step
        epochs = [torch.cat(made[:3]), torch.cat(made[3:])]
        for epoch in epochs:
            assert len(epoch.unique(dim=0)) == 6  # everybody once
        assert not torch.equal(*epochs)

    def test_without_replay_every_step_has_its_own(self, tmp_path, monkeypatch):
        trainer = trainer_of(tmp_path, max_steps=3, gradient_accumulation_steps=2)
        steps, made = recorded(trainer, monkeypatch)
        trainer.train()
        assert len(steps) == len(made) == 5  # two, the last one of an epoch, two

    def test_another_batch_gets_negatives_of_its_own(self, tmp_path, monkeypatch):
        """As where a run is resumed in the middle of a batch's uses."""
        trainer = trainer_of(tmp_path, replay=3)
        _, made = recorded(trainer, monkeypatch)
        for rows in ((0, 1), (2, 3), (2, 3), (2, 3), (2, 3)):
            trainer.compute_loss(trainer.model, batch_of(trainer, *rows))
        assert [len(made), trainer._uses_left] == [3, 2]
        assert torch.equal(made[1], made[2])
