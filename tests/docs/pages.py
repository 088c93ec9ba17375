"""What stands on the pages of the docs: commands and snippets, in order; and a folder with every file they name."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

from motion_grpo.data import FEATURES, Clip, clip_to_row
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.trajectory import HeadTrajectory, default_T_device_cpf, load_trajectory
from tests.body.smplh import write_smplh
from tests.hub.training_runs import CRITIC
from tests.io.test_hamer import pickled
from tests.models.test_egoallo import checkpoint
from tests.packaging.environment import ROOT
from tests.pipelines.test_plot_run import log
from tests.tiny import moving_motion, tiny_pipeline, write_shard
from tests.trajectory.helpers import aria_csv
from tests.trajectory.readers.test_hands import write_csv
from tests.trajectory.test_hand_observations import everywhere, recording

LANGUAGES = {"bash": "a command", "python": "a snippet"}
NOT_RUN = {"text": "lines of a file", "csharp": "for Unity", "bibtex": "for LaTeX"}


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Of a block of bash, one a line, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]


def blocks_of(page: Path) -> list[Block]:
    """In the order of the page."""
    return [Block(*found) for found in re.findall(r"```(\w+)[^\n]*\n(.*?)```", page.read_text(), re.DOTALL)]


def write_world(folder: Path) -> None:
    """Every file that the pages name, small, and the folders of a clone that they run in."""
    for name in ("examples", "trainers", "pyproject.toml", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    _write_motions(folder)
    _write_heads(folder)
    _write_data(folder)
    for name in (
        "runs/base/pipeline",
        "runs/grpo/pipeline",
        "runs/a/pipeline",
        "runs/amass/pipeline",
        "me/ego-motion-grpo",
    ):
        tiny_pipeline(2).save_pretrained(folder / name)
    tiny_pipeline(2, include_wrists_cond=True).save_pretrained(folder / "CHECKPOINT")
    for name in ("runs/critic/model", "runs/noise/model", "me/critic"):
        MotionPerceptualModel(**CRITIC).save_pretrained(folder / name)
    checkpoint(folder / "egoallo_checkpoint_april13")
    write_smplh(folder / "model.npz")


def _write_motions(folder: Path) -> None:
    for name in ("walk.npz", "motion.npz", "recorded.npz"):
        moving_motion(60).save(folder / name)
    for name in ("runs/a", "runs/grpo"):
        (folder / name).mkdir(parents=True)
        (folder / name / "training_log.json").write_text(json.dumps(log(3)))


def head_and_wrists() -> tuple[HeadTrajectory, torch.Tensor]:
    """Two seconds from time 0 on, which all files of a head and of hands are of."""
    head, wrists = recording(60)
    return replace(head, timestamps=head.timestamps - head.timestamps[0]), wrists


def _write_heads(folder: Path) -> None:
    head, wrists = head_and_wrists()
    poses = np.tile(np.eye(4), (len(head), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = head.R_world_cpf, head.p_world_cpf
    device = aria_csv(poses @ np.linalg.inv(default_T_device_cpf("gen1").numpy()), head.timestamps.numpy())
    (folder / "mps").mkdir()
    for path in (folder / "closed_loop_trajectory.csv", folder / "mps" / "closed_loop_trajectory.csv"):
        path.write_text("\n".join(device))
    for name in ("hand_tracking_results.csv", "wrist_and_palm_poses.csv", "head.csv"):
        write_csv(folder / name, head, wrists, everywhere(60))
    pickled(folder / "hamer_outputs.pkl")


def _write_data(folder: Path) -> None:
    for split in ("train", "val", "id_test", "test"):
        for place in ("DATA", "data/amass", "me/amass-ego"):
            (folder / place / split).mkdir(parents=True)
            clips = [Clip(f"{split}/{seed}", "cmu", moving_motion(140, seed), split=split) for seed in range(2)]
            rows = Dataset.from_list([clip_to_row(clip) for clip in clips], features=FEATURES)
            rows.to_parquet(folder / place / split / "cmu.parquet")
    for place in ("MOCAP", "MOCAP2"):
        (folder / place).mkdir()
        write_shard(folder / place, "cmu" if place == "MOCAP" else "cmu2", "train", [moving_motion(40)])
    amass = folder / "AMASS" / "CMU" / "01"
    amass.mkdir(parents=True)
    poses = np.zeros((200, 156))
    poses[:, 0] = np.pi / 2
    still = {
        "trans": np.tile([0.0, 0.0, 0.9], (200, 1)),
        "mocap_framerate": 60.0,
        "gender": "male",
        "betas": np.zeros(16),
    }
    np.savez(amass / "01_01_poses.npz", poses=poses, **still)
    for gender in ("male", "female", "neutral"):
        (folder / "SMPLH" / gender).mkdir(parents=True)
        write_smplh(folder / "SMPLH" / gender / "model.npz")
    for seed in range(2):
        for split in ("val", "id_test", "test"):
            (folder / "THEIR_MOTIONS" / "cmu" / split).mkdir(parents=True, exist_ok=True)
            moving_motion(140, seed).save(folder / "THEIR_MOTIONS" / "cmu" / split / f"{seed}.npz")


def names_of_snippets() -> dict[str, object]:
    """What snippets take for given."""
    head, wrists = head_and_wrists()
    return {
        "trajectory": head, "T_world_wrist": wrists, "visible": everywhere(60), "betas": torch.zeros(16).tolist(),
        "load_trajectory": load_trajectory,
    }  # fmt: skip
