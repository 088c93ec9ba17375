"""The commands of ``motion-grpo data``: reports, exit codes, cards and uploads, on tiny inputs."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from motion_grpo.cli import data as module
from typer.testing import CliRunner

from motion_grpo.data import (
    FEATURES,
    MocapPackImporter,
    MotionWindows,
    load_clips,
    load_motions,
    row_to_trajectory,
)
from motion_grpo.data.importers.amass import AmassImporter
from motion_grpo.data.importers.aria import AdtImporter, AriaImporter
from motion_grpo.data.importers.asf import AsfImporter
from motion_grpo.data.importers.bvh import BvhImporter
from motion_grpo.data.importers.egoallo_hdf5 import EgoAlloHdf5Importer
from motion_grpo.data.importers.open_mocap import OpenMocapImporter
from motion_grpo.data.importers.rich import RichImporter
from motion_grpo.trajectory import default_T_device_cpf
from tests.conftest import shared_path
from tests.tiny import moving_motion, write_shard
from tests.trajectory.helpers import aria_csv, walk

COMMANDS = ["amass", "rich", "adt", "aria", "bvh", "asf", "open-mocap", "egoallo-hdf5", "pack"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(*arguments: str | Path, code: int = 0) -> str:
    """What a command prints; its errors are raised."""
    result = CliRunner().invoke(module.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def pack(tmp_path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    for number, (source, split) in enumerate([("cmu", "train"), ("cmu", "val"), ("bandai1", "train")]):
        write_shard(folder, source, split, [moving_motion(40 + i, 10 * number + i) for i in range(2)])
    return folder


@pytest.fixture
def amass(tmp_path) -> Path:
    """One good file, one on the skip list."""
    folder = tmp_path / "AMASS"
    for name in ("CMU/01/01_01_poses", "BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses"):
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True)
        poses = np.zeros((200, 156))
        poses[:, 0] = np.pi / 2
        poses[:, 3] = 0.2 * np.sin(np.arange(200) / 20)
        body = {"gender": "male", "betas": np.zeros(16)}
        np.savez(path, poses=poses, trans=np.tile([0.0, 0.0, 0.9], (200, 1)), mocap_framerate=60.0, **body)
    return folder


def aria_folder(tmp_path: Path) -> Path:
    """Three seconds of an MPS recording."""
    recording = tmp_path / "walks" / "day1"
    recording.mkdir(parents=True)
    poses, times = walk(90)
    lines = aria_csv(poses @ np.linalg.inv(default_T_device_cpf("gen1").numpy()), times)
    (recording / "closed_loop_trajectory.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "walks"


@pytest.fixture
def hub(monkeypatch) -> SimpleNamespace:
    """A Hub that only remembers what it was asked for (tests/hub/ has a real one)."""
    hub = SimpleNamespace(checks=[], pushes=[])

    def check_repo(repo_id, **options):
        hub.checks.append((repo_id, options))
        return f"me/{repo_id.removeprefix('me/')}"

    def push_folder(folder, repo_id, **options):
        hub.pushes.append((folder, repo_id, options))
        return SimpleNamespace(repo_url=f"https://huggingface.co/datasets/{repo_id}")

    monkeypatch.setattr("motion_grpo.hub.check_repo", check_repo)
    monkeypatch.setattr("motion_grpo.hub.push_folder", push_folder)
    return hub


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = run(name, "--help")
    for option in ("--output", "--num-proc", "--strict", "--clips-per-shard", "--push-to-hub", "--private"):
        assert option in text
    assert ("--body-models" in text) == (name in ("amass", "rich", "egoallo-hdf5"))


def test_defaults_are_the_importers_own():
    folder = Path("somewhere")
    importers = [AmassImporter, RichImporter, AdtImporter, AriaImporter, BvhImporter, AsfImporter, EgoAlloHdf5Importer]
    for importer in importers:
        assert getattr(module, importer.name.replace("-", "_"))(folder) == importer(folder)
    assert module.pack([folder]) == MocapPackImporter((folder,))
    assert module.open_mocap(cmu=folder) == OpenMocapImporter(cmu=folder)


def test_help_imports_nothing_heavy():
    script = "import sys; sys.argv = ['motion-grpo', 'data', 'bvh', '--help']; from motion_grpo.cli import main\n"
    script += "try: main.main()\nfinally: print([name for name in ('torch', 'datasets') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "--metres-per-unit" in result.stdout
    assert result.stdout.rstrip().endswith("[]")


def test_pack_to_training_windows(pack, tmp_path):
    out = tmp_path / "out"
    text = run("pack", pack, "-o", out, "--clips-per-shard", "1")
    assert "open_mocap_smplh: kept 6 clips, 243 frames, 0.00 hours" in text
    loaded = datasets.load_dataset(str(out))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "val": 2}
    assert loaded["train"].features == FEATURES
    assert len(MotionWindows(load_motions(out, "train"), 16)) == 8
    card = DatasetCard.load(out / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert "NSF EIA-0196217" in card.text
    assert "(c) 2022 Bandai Namco" in card.text
    # Done already: the same command finds its shards.
    assert "kept 6 clips" in run("pack", pack, "-o", out, "--clips-per-shard", "1")
    run("pack", pack, "-o", tmp_path / "free", "--sources", "cmu", "--splits", "train")
    assert {clip.source for clip in load_clips(tmp_path / "free", "train")} == {"cmu"}
    assert DatasetCard.load(tmp_path / "free" / "README.md").data.license == "other"


def test_report_and_exit_code(amass, tmp_path):
    out = tmp_path / "out"
    text = run("amass", amass, "-o", out)
    assert "kept 1 clips" in text
    assert "1 left out:\n       1  skip list: BioMotionLab_NTroje treadmill" in text
    assert "no redistribution" in DatasetCard.load(out / "README.md").text
    broken = amass / "CMU" / "01" / "01_02_poses.npz"
    broken.write_bytes(b"nothing")
    text = run("amass", amass, "-o", tmp_path / "broken", code=1)
    assert f"broken: {broken}: " in text
    assert "kept 1 clips" in text
    report = json.loads((tmp_path / "broken" / "amass_report.json").read_text())
    assert [dropped["broken"] for dropped in report["dropped"]] == [False, True]
    with pytest.raises(ValueError, match=r"01_02_poses\.npz.*strict: stopped here"):
        run("amass", amass, "-o", tmp_path / "strict", "--strict")
    broken.unlink()
    (amass / "CMU" / "01" / "01_01_poses.npz").unlink()
    (amass / "CMU" / "stray.npz").write_bytes(b"nothing")
    assert "kept 0 clips" in run("amass", amass, "-o", tmp_path / "none", code=1)
    assert not (tmp_path / "none" / "README.md").exists()


def test_heads_without_bodies(tmp_path):
    run("aria", aria_folder(tmp_path), "-o", tmp_path / "out", "--split", "train", "--license", "mine")
    rows = load_motions(tmp_path / "out", "train")
    assert rows["license"] == ["mine"]
    assert row_to_trajectory(rows[0]).fps == pytest.approx(30)
    assert len(MotionWindows(rows, 16)) == 0
    assert "row_to_trajectory(rows[0])" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("name", "folder", "clips"), [("bvh", "bandai_bvh", 4), ("asf", "cmu_asfamc", 2)])
def test_real_recordings(tmp_path, name, folder, clips):
    text = run(name, shared_path(f"samples/{folder}"), "-o", tmp_path / "out", "--name", "mine", "--split", "val")
    assert f"mine: kept {clips} clips" in text
    assert {clip.source for clip in load_clips(tmp_path / "out", "val")} == {"mine"}


def test_upload_keeps_shards_card_and_splits(pack, hub, tmp_path):
    out = tmp_path / "out"
    text = run("pack", pack, "-o", out, "--push-to-hub", "motions")
    assert "uploaded to https://huggingface.co/datasets/me/motions" in text
    assert hub.checks == [("motions", {"repo_type": "dataset", "private": False})]
    [(folder, repo, files)] = hub.pushes
    assert (folder, repo, files["repo_type"], files["private"]) == (out, "me/motions", "dataset", False)
    everything = [str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()]
    sent = huggingface_hub.utils.filter_repo_objects(everything, allow_patterns=files["allow_patterns"])
    assert sorted(sent) == [
        "README.md",
        "eval.yaml",
        "train/open_mocap_smplh-00000.parquet",
        "val/open_mocap_smplh-00000.parquet",
    ]
    assert 'load_motions("me/motions", "train")' in (out / "README.md").read_text()


def test_what_must_not_be_passed_on_stays_private(amass, pack, hub, tmp_path):
    with pytest.raises(ValueError, match=r"The license of amass does not allow sharing it publicly.*--private"):
        run("amass", amass, "-o", tmp_path / "out", "--push-to-hub", "me/amass")
    assert not (tmp_path / "out").exists()
    run("amass", amass, "-o", tmp_path / "out")
    # Nor by way of another source's command.
    with pytest.raises(ValueError, match=r"AMASS, CMU does not allow sharing it publicly.*--private"):
        run("pack", pack, "-o", tmp_path / "out", "--push-to-hub", "me/amass")
    assert hub.pushes == []
    run("amass", amass, "-o", tmp_path / "out", "--push-to-hub", "me/amass", "--private")
    # Both then refuse a repository that exists and is public.
    assert hub.checks[-1][1]["private"] is True
    assert hub.pushes[0][2]["private"] is True


def test_unknown_terms_are_not_published(hub, tmp_path):
    with pytest.raises(ValueError, match="nobody has stated the license of aria"):
        run("aria", aria_folder(tmp_path), "-o", tmp_path / "out", "--push-to-hub", "me/walks")
    assert hub.pushes == []
