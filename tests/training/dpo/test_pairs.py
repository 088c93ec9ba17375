"""Preference pairs: drawn, told apart, written, read, and refused where there is nothing to prefer."""

import pytest
import torch

from motion_grpo.motion import MotionState
from motion_grpo.rewards import REWARDS, RewardInputs, score
from motion_grpo.training import PreferencePairs
from motion_grpo.training.judging import conditions_of, reward_inputs
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.training.dpo.setup import CPU, NAMES, drawn
from tests.training.grpo.setup import WINDOW, pipeline, windows


def test_winners_earn_more():
    pairs = drawn()
    assert len(pairs) == 5
    assert (pairs.scores[:, 0] > pairs.scores[:, 1]).all()
    base, numbers = pipeline(), torch.randperm(len(windows()), generator=generator()).tolist()[:5]
    truth = conditions_of(windows(), numbers, base, CPU)
    torch.testing.assert_close(pairs.head.p_world_cpf, truth.head.p_world_cpf)
    earned = []
    for packed in (pairs.winner, pairs.loser):
        state = MotionState.unpack(packed, base.denoiser.state_layout)
        earned.append(score({"position": REWARDS["position"]}, reward_inputs(state, truth, base.skeleton))["position"])
    assert float((earned[0] - earned[1]).mean()) > 0


def generator() -> torch.Generator:
    from motion_grpo.seeding import generator_of

    return generator_of(0, "pairs")


def test_the_truth_may_be_the_winner():
    pairs, own = drawn(winner="truth"), drawn()
    torch.testing.assert_close(pairs.loser, own.loser)
    truth = conditions_of(
        windows(), torch.randperm(len(windows()), generator=generator()).tolist()[:5], pipeline(), CPU
    )
    torch.testing.assert_close(pairs.winner, truth.state.pack(pipeline().denoiser.state_layout))


def test_a_pair_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    whole = drawn()
    monkeypatch.setattr("motion_grpo.training.dpo.pairs._BATCH", 4)
    torch.testing.assert_close(drawn().winner, whole.winner, rtol=1e-5, atol=1e-5)


def test_pairs_are_written_and_read(tmp_path):
    pairs = drawn()
    pairs.save(tmp_path / "pairs")
    read = PreferencePairs.load(tmp_path / "pairs")
    assert read.facts == pairs.facts
    assert read.facts.rewards == list(NAMES)
    for name in ("mask", "winner", "loser", "scores"):
        assert torch.equal(getattr(read, name), getattr(pairs, name)), name
    for ours, theirs in zip(read.head, pairs.head, strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(FileNotFoundError, match=r"has no pairs\.json"):
        PreferencePairs.load(tmp_path)


def test_groups_that_tie_make_no_pair():
    calls = []

    def first_batch_ties(inputs: RewardInputs) -> torch.Tensor:
        value = torch.arange(len(inputs.mask)) // 4 % 2 * torch.rand(len(inputs.mask))
        calls.append(len(value))
        return value

    pairs = drawn(4, {"mine": first_batch_ties})
    assert calls == [16]
    assert (len(pairs), pairs.facts.ties) == (2, 2)
    with pytest.raises(ValueError, match="There are no pairs: all members of every group earned the same"):
        drawn(4, {"same": lambda inputs: torch.ones(len(inputs.mask))})


def test_pairs_that_tie_are_refused():
    pairs = drawn(3)
    scores = pairs.scores.clone()
    scores[1, 1] = scores[1, 0]
    with pytest.raises(ValueError, match=r"Pair 1 of 3 has a winner that earned .*: leave pairs that tie out"):
        PreferencePairs(pairs.facts, pairs.head, pairs.mask, pairs.winner, pairs.loser, scores)
    with pytest.raises(ValueError, match="Pair 0 of 3"):
        PreferencePairs(pairs.facts, pairs.head, pairs.mask, pairs.loser, pairs.winner, pairs.scores.flip(1))


def test_windows_are_whole():
    pairs = drawn(2)
    assert pairs.mask.shape == (2, WINDOW)
    assert isinstance(pairs.head, HeadPoses)
