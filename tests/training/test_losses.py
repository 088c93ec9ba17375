"""EgoAllo's loss against its own numbers, and the geometric losses by hand."""

import pytest
import roma
import torch
from safetensors.torch import load_file

from motion_grpo.body import FOOT_JOINTS, Skeleton
from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.losses import (
    MODALITY_WEIGHTS,
    GeometricWeights,
    denoising_loss,
    geometric_loss,
    noise_level_weights,
    sample_noise_levels,
)
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import GOLDEN

FPS = 30.0
EPSILON = 1e-5  # of a distance that is 0; see _norm


class TestDenoisingLoss:
    def test_egoallos_loss_and_its_terms(self):
        golden = load_file(GOLDEN / "denoising_loss.safetensors")
        denoiser, scheduler = EgoMotionDenoiser.from_egoallo(GOLDEN / "egoallo_token_rope"), EgoMotionSDEScheduler()
        layout, t, mask = denoiser.state_layout, golden["t"], golden["mask"]
        state = MotionState(
            golden["betas"].expand(-1, 24, -1),
            wxyz_to_matrix(golden["body_quats"]),
            golden["contacts"],
            wxyz_to_matrix(golden["hand_quats"]),
        )
        target = state.pack(layout)
        cond = denoiser.condition(HeadPoses.from_wxyz_xyz(golden["T_world_cpf"], golden["T_cpf_tm1_cpf_t"]))
        weight = noise_level_weights(scheduler.alphas_cumprod)[t - 1]
        torch.testing.assert_close(weight, golden["weight_t"], rtol=1e-5, atol=0)
        with torch.no_grad():
            predicted = denoiser(scheduler.add_noise(target, golden["eps"], t), t, cond, mask).sample
        loss, terms = denoising_loss(predicted, target, layout, weight, mask)
        torch.testing.assert_close(loss, golden["loss"], rtol=1e-4, atol=0)
        assert terms.keys() == MODALITY_WEIGHTS.keys()
        for name, term in terms.items():
            torch.testing.assert_close(term, golden[f"term_{name}"], rtol=1e-4, atol=0, msg=name)

    def test_by_hand(self):
        """One number off by 1 in one frame of two rows of 3 and 1 frames."""
        layout, mask = StateLayout("6d", include_hands=False), torch.tensor([[True] * 3, [True, False, False]])
        weight = torch.tensor([0.5, 1.0])
        target = torch.zeros(2, 3, 163)

        def off(row: int, frame: int, number: int) -> tuple[float, dict[str, float]]:
            predicted = target.clone()
            predicted[row, frame, number] = 1.0
            loss, terms = denoising_loss(predicted, target, layout, weight, mask)
            return float(loss), {name: float(term) for name, term in terms.items() if term != 0}

        # betas[2] counts a third; the mean is over 16 numbers and 4 frames.
        betas = 0.5 / 3 / 16 / 4
        assert off(0, 1, 2) == (pytest.approx(0.1 * betas), {"betas": pytest.approx(betas)})
        rotation = 1.0 / 126 / 4
        assert off(1, 0, 16) == (pytest.approx(rotation), {"body_rotmats": pytest.approx(rotation)})
        contact = 0.5 / 21 / 4
        assert off(0, 0, 162) == (pytest.approx(0.1 * contact), {"contacts": pytest.approx(contact)})
        assert off(1, 1, 20) == (0.0, {})  # padding

    def test_hands_count_where_they_move_and_few_frames_count_little(self):
        layout, mask = StateLayout("matrix", include_hands=True), torch.ones(2, 4, dtype=torch.bool)
        target = torch.zeros(2, 4, 496)
        target[1, 2, 300] = 0.5  # the second row's hands move
        predicted = target.clone()
        predicted[:, :, 226:] += 1.0
        _, terms = denoising_loss(predicted, target, layout, torch.ones(2), mask)
        assert float(terms["hand_rotmats"]) == pytest.approx(4 / 256)
        mask[1, 2] = False  # a movement in the padding is none
        target[1, 2, 300] = 0.5
        _, terms = denoising_loss(predicted, target, layout, torch.ones(2), mask)
        assert float(terms["hand_rotmats"]) == 0

    def test_padding_has_no_gradient(self):
        layout, mask = StateLayout("6d", include_hands=False), torch.tensor([[True, True, False]])
        predicted = torch.randn(1, 3, 163, requires_grad=True)
        denoising_loss(predicted, torch.zeros(1, 3, 163), layout, torch.ones(1), mask)[0].backward()
        assert predicted.grad[0, 2].eq(0).all()
        assert predicted.grad[0, :2].ne(0).all()


def test_noise_level_weights():
    """From 1 for hardly any noise to a floor of 0.01."""
    alphas = EgoMotionSDEScheduler().alphas_cumprod
    weights = noise_level_weights(alphas)
    assert float(weights[0]) == pytest.approx(1.0)
    assert float(weights[-1]) == pytest.approx(0.01, abs=1e-6)
    assert (weights.diff() <= 0).all()
    snr = alphas.double() / (1 - alphas.double())
    assert float(weights[99]) == pytest.approx(float(0.01 + 0.99 * snr[99] / snr[0]), rel=1e-4)


class TestNoiseLevels:
    @pytest.mark.parametrize("favour_high", [False, True])
    def test_all_levels_and_no_others(self, favour_high):
        levels = sample_noise_levels(20000, 10, favour_high=favour_high)
        shares = levels.bincount(minlength=11).float() / 20000
        # Uniform, or a density that grows linearly: P(level <= k) = (k / 10)^2.
        k = torch.arange(0, 11.0)
        expected = ((k / 10).square().diff() if favour_high else torch.full((10,), 0.1)).tolist()
        assert shares[0] == 0
        assert shares[1:].tolist() == pytest.approx(expected, abs=0.015)
        assert levels.dtype == torch.int64

    def test_seed(self):
        def draw():
            return sample_noise_levels(50, 1000, favour_high=True, generator=torch.Generator().manual_seed(1))

        assert torch.equal(draw(), draw())
        assert 1 <= draw().min() <= draw().max() <= 1000


class TestGeometricLoss:
    @pytest.fixture
    def truth(self):
        """State, head poses and joints of two windows of 6 frames that belong together."""
        skeleton = Skeleton.default()
        state = MotionState(
            torch.randn(2, 1, 16).expand(2, 6, 16), roma.random_rotmat((2, 6, 21)), torch.ones(2, 6, 21)
        )
        head = HeadPoses.from_world(roma.random_rotmat((2, 6)), torch.randn(2, 6, 3))
        body = skeleton.place_by_head(state.betas, state.body_rotmats, head.R_world_cpf, head.p_world_cpf)
        return state, head, body.joints

    @staticmethod
    def terms(state, joints, head, mask=None, contacts=None, weights=GeometricWeights(1.0, 1.0, 1.0)):  # noqa: B008
        mask = torch.ones(2, 6, dtype=torch.bool) if mask is None else mask
        contacts = state.contacts if contacts is None else contacts
        return geometric_loss(state, joints, contacts, head, Skeleton.default(), mask, weights, FPS)

    def test_zero_at_the_truth(self, truth):
        state, head, joints = truth
        _, terms = self.terms(state, joints, head)
        assert float(terms["position"]) == pytest.approx(EPSILON, rel=0.05)
        assert float(terms["velocity"]) == pytest.approx(EPSILON * FPS, rel=0.05)

    def test_position_and_velocity_by_hand(self, truth):
        """The truth 0.1 m aside is 0.1 m away and as fast; drifting apart at 0.3 m/s it is not as fast."""
        state, head, joints = truth
        aside = joints + torch.tensor([0.06, 0.0, 0.08])
        _, terms = self.terms(state, aside, head)
        assert float(terms["position"]) == pytest.approx(0.1, rel=1e-4)
        assert float(terms["velocity"]) == pytest.approx(EPSILON * FPS, rel=0.1)
        time = torch.arange(6.0)[:, None, None] / FPS
        _, terms = self.terms(state, joints + time * torch.tensor([0.0, 0.3, 0.0]), head)
        assert float(terms["velocity"]) == pytest.approx(0.3, rel=1e-3)
        assert float(terms["position"]) == pytest.approx(0.3 * float(time.mean()), rel=1e-3)

    def test_planted_feet_must_not_move(self, truth):
        state, head, joints = truth
        speed = (joints[:, 1:, list(FOOT_JOINTS)] - joints[:, :-1, list(FOOT_JOINTS)]).norm(dim=-1) * FPS
        _, terms = self.terms(state, joints, head)
        assert float(terms["foot_contact"]) == pytest.approx(float(speed.mean()), rel=1e-3)
        lifted = torch.ones(2, 6, 21)
        lifted[:, 2, [j - 1 for j in FOOT_JOINTS]] = 0.0  # a foot counts when it is down in both frames
        _, terms = self.terms(state, joints, head, contacts=lifted)
        expected = speed[:, [0, 3, 4]].sum() / speed[..., 0].numel() / 4
        assert float(terms["foot_contact"]) == pytest.approx(float(expected), rel=1e-3)
        others = torch.ones(2, 6, 21)
        others[..., [j - 1 for j in FOOT_JOINTS]] = 0.0
        assert float(self.terms(state, joints, head, contacts=others)[1]["foot_contact"]) == 0

    def test_weights(self, truth):
        state, head, joints = truth
        weights = GeometricWeights(position=2.0, velocity=0.5, foot_contact=0.1)
        loss, terms = self.terms(state, joints + 0.1, head, weights=weights)
        expected = 2.0 * terms["position"] + 0.5 * terms["velocity"] + 0.1 * terms["foot_contact"]
        torch.testing.assert_close(loss, expected)
        assert not GeometricWeights()
        assert GeometricWeights(foot_contact=0.1)

    def test_padding_changes_nothing(self, truth):
        state, head, joints = truth
        mask = torch.ones(2, 6, dtype=torch.bool)
        mask[1, 3:] = False
        wrong = joints.clone()
        wrong[1, 3:] += 100.0
        _, terms = self.terms(state, joints, head, mask)
        _, other = self.terms(state, wrong, head, mask)
        torch.testing.assert_close(terms, other)
        assert float(terms["position"]) == pytest.approx(EPSILON, rel=0.05)
        wrong[1, 2] += 100.0
        assert float(self.terms(state, wrong, head, mask)[1]["position"]) > 1.0

    def test_gradient_is_finite_at_the_truth_and_leads_there(self, truth):
        state, head, joints = truth
        turn = torch.zeros(2, 6, 21, 3, requires_grad=True)
        betas = state.betas.clone().requires_grad_()

        def loss(at: torch.Tensor) -> torch.Tensor:
            moved = state._replace(body_rotmats=state.body_rotmats @ roma.rotvec_to_rotmat(at), betas=betas)
            return self.terms(moved, joints, head)[0]

        loss(turn + 0.0).backward()
        assert turn.grad.isfinite().all()
        assert betas.grad.isfinite().all()
        start = (0.1 * torch.randn(2, 6, 21, 3)).requires_grad_()
        loss(start).backward()
        assert start.grad.isfinite().all()
        with torch.no_grad():
            assert loss(start - 1e-3 * start.grad / start.grad.norm()) < loss(start)
