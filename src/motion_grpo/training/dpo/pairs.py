"""Preference pairs: two motions for one head trajectory, of which one is better; drawn once, written, and reused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from motion_grpo.data import MotionWindows
from motion_grpo.data.batches import TrainingBatch
from motion_grpo.files import write_text
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.rollout import rollout
from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.rewards import Reward, score
from motion_grpo.seeding import generator_of
from motion_grpo.training.grpo.objective import advantages
from motion_grpo.training.judging import conditions_of, reward_inputs
from motion_grpo.trajectory.head_poses import HeadPoses

FACTS_FILE = "pairs.json"
WINNERS = ("best", "truth")
_BATCH = 256


@dataclass(frozen=True)
class PairFacts:
    """How pairs were drawn."""

    rotations: str
    """See :class:`~motion_grpo.motion.StateLayout`."""
    include_hands: bool
    base: str
    """The pipeline that drew them."""
    rewards: list[str]
    winner: str
    """``best``: of a group; ``truth``: the recorded motion."""
    group_size: int
    num_sampling_steps: int
    seed: int
    ties: int
    """Groups that were left out because all their members earned the same."""

    @property
    def layout(self) -> StateLayout:
        """Of the states."""
        return StateLayout("6d" if self.rotations == "6d" else "matrix", self.include_hands)


class PreferencePairs(Dataset):
    """Pairs in memory; an item is its number.

    Args:
        facts: how they were drawn.
        head: what both motions are for; one row a pair.
        mask: True for frames that exist.
        winner: clean states, packed.
        loser: likewise.
        scores: of winner and loser.

    Raises:
        ValueError: a pair whose members tie, or are the wrong way round.
    """

    def __init__(
        self,
        facts: PairFacts,
        head: HeadPoses,
        mask: Bool[Tensor, "pairs frames"],
        winner: Float[Tensor, "pairs frames d_state"],
        loser: Float[Tensor, "pairs frames d_state"],
        scores: Float[Tensor, "pairs 2"],
    ) -> None:
        if not len(mask):
            raise ValueError("There are no pairs: all members of every group earned the same; use other rewards.")
        bad = (~(scores[:, 0] > scores[:, 1])).nonzero().flatten().tolist()
        if bad:
            better, worse = scores[bad[0]].tolist()
            raise ValueError(
                f"Pair {bad[0]} of {len(mask)} has a winner that earned {better:g} and a loser that earned {worse:g}; "
                "the winner must have earned more: leave pairs that tie out."
            )
        self.facts, self.head, self.mask = facts, head, mask
        self.winner, self.loser, self.scores = winner, loser, scores

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: int) -> int:
        return index

    def save(self, folder: str | Path) -> None:
        """Writes the pairs as a data set that ``datasets.load_from_disk`` reads, with ``pairs.json`` beside it."""
        columns = self._columns()
        features = {name: _feature(values) for name, values in columns.items()}
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        rows.save_to_disk(str(folder))
        write_text(Path(folder) / FACTS_FILE, json.dumps(asdict(self.facts), indent=1) + "\n")

    @staticmethod
    def load(folder: str | Path) -> "PreferencePairs":
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no pairs are there.
            ValueError: pairs that tie.
        """
        path = Path(folder) / FACTS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {FACTS_FILE}, so it holds no pairs that MotionDPOTrainer drew.")
        facts = PairFacts(**json.loads(path.read_text()))
        rows: Any = datasets.load_from_disk(str(folder)).with_format("numpy")
        read = {name: torch.from_numpy(np.stack(list(rows[name]))) for name in rows.column_names}
        parts = {name: read.pop(f"head_{name}").unflatten(-1, (3, 3)) for name in ("R_world_cpf", "R_prev_cpf")}
        parts |= {name: read.pop(f"head_{name}") for name in ("p_world_cpf", "p_prev_cpf")}
        return PreferencePairs(facts, HeadPoses(**parts), **read)

    def _columns(self) -> dict[str, np.ndarray]:
        head = {f"head_{name}": x.flatten(3) if x.ndim == 4 else x for name, x in self.head._asdict().items()}
        head = {name: x.flatten(2) for name, x in head.items()}
        own = {"mask": self.mask, "winner": self.winner, "loser": self.loser, "scores": self.scores}
        return {name: values.cpu().numpy() for name, values in (head | own).items()}


def _feature(values: np.ndarray) -> datasets.Array2D | datasets.List:
    if values.ndim == 3:
        return datasets.Array2D(values.shape[1:], "float32")
    return datasets.List(datasets.Value("bool" if values.dtype == bool else "float32"), length=values.shape[1])


@torch.no_grad()
def draw_pairs(
    pipeline: EgoMotionPipeline,
    windows: MotionWindows,
    rewards: Mapping[str, Reward],
    *,
    count: int,
    group_size: int,
    num_sampling_steps: int,
    seed: int,
    device: torch.device,
    winner: str = "best",
    weights: Sequence[float] | None = None,
) -> PreferencePairs:
    """The best and the worst of a group of samples for each of so many windows, by the sum of normalized rewards.

    Every number drawn is a function of the seed, the window and the member of the group.

    Args:
        pipeline: draws the samples, with its own eta.
        windows: conditions with recorded motion.
        rewards: by name; each is normalized in its group, then they are added (MotionGRPO, Algorithm 1).
        count: windows to draw for; groups whose members all earn the same make no pair.
        group_size: samples of a window.
        num_sampling_steps: of a sample.
        seed: of the noise, and of which windows.
        device: where to draw.
        winner: ``best`` of the group, or ``truth``: the recorded motion against the worst.
        weights: of the rewards.

    Raises:
        ValueError: nothing but ties.
    """
    denoiser, layout = pipeline.denoiser.to(device).eval(), pipeline.denoiser.state_layout
    skeleton, scheduler = pipeline.skeleton.to(device), pipeline.scheduler
    numbers = torch.randperm(len(windows), generator=generator_of(seed, "pairs"))[:count].tolist()
    found: list[Any] = []
    ties, per_batch = 0, max(1, _BATCH // group_size)
    for start in range(0, len(numbers), per_batch):
        own = numbers[start : start + per_batch]
        truth = cast(TrainingBatch, conditions_of(windows, own, pipeline, device))
        rows = torch.arange(len(own), device=device).repeat_interleave(group_size)
        streams = [generator_of(seed, "pairs", number, member) for number in own for member in range(group_size)]

        def noise(_: int = 0, streams: list[torch.Generator] = streams) -> Float[Tensor, "samples frames d_state"]:
            shape = (windows.length, layout.dim)
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)

        drawn = rollout(
            denoiser, scheduler, noise(), noise, denoiser.condition(truth.head)[rows], truth.mask[rows],
            num_steps=num_sampling_steps, eta=scheduler.config.eta,
        ).latents[-1]  # fmt: skip
        judged = reward_inputs(MotionState.unpack(drawn, layout), truth, skeleton, rows.tolist())
        total, _ = advantages(score(rewards, judged), group_size, weights=weights)
        grouped, states = total.view(-1, group_size), drawn.unflatten(0, (-1, group_size))
        differ = grouped.amax(1) > grouped.amin(1)
        ties += int((~differ).sum())
        place = torch.arange(len(own), device=device)
        best, worst = states[place, grouped.argmax(1)], states[place, grouped.argmin(1)]
        scores = torch.stack([grouped.amax(1), grouped.amin(1)], dim=1)
        if winner == "truth":
            best = truth.state.pack(layout)
        found.append((truth.head.rows(differ), *(x[differ].cpu() for x in (truth.mask, best, worst, scores))))
    facts = PairFacts(
        rotations=layout.rotations,
        include_hands=layout.include_hands,
        base=str(pipeline.config.get("_name_or_path") or "a pipeline in memory"),
        rewards=list(rewards),
        winner=winner,
        group_size=group_size,
        num_sampling_steps=num_sampling_steps,
        seed=seed,
        ties=ties,
    )
    head = HeadPoses(*(torch.cat(parts).cpu() for parts in zip(*(part[0] for part in found), strict=True)))
    return PreferencePairs(facts, head, *(torch.cat(parts) for parts in zip(*(p[1:] for p in found), strict=True)))
