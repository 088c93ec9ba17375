"""Every command of the pages on exports and on the viewer runs."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from motion_grpo import Motion, load_trajectory
from motion_grpo.body import Skeleton
from motion_grpo.data import FEATURES, Clip, clip_to_row
from motion_grpo.viz.viewer import Viewer, _free_port
from tests.body.smplh import write_smplh
from tests.body.test_surface import write_smplx
from tests.pipelines.test_recover import EXAMPLES, run
from tests.tiny import moving_motion

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    line.partition("#")[0].strip()
    for page in ("exports.md", "viewer.md")
    for block in re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("motion-grpo")
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with every file that the pages name."""
    monkeypatch.chdir(tmp_path)
    walk = moving_motion(40)
    walk.save("walk.npz")
    for name in ("walk_0.npz", "walk_1.npz", "recorded.npz"):
        replace(walk, root_positions=walk.root_positions + 0.02 * torch.randn(3)).save(name)
    head = (EXAMPLES / "brisk_walk.csv").read_text()
    for name in ("head.csv", "closed_loop_trajectory.csv"):
        Path(name).write_text(head)
    Path("semidense_points.csv.gz").write_text("uid,graph_uid,px_world,py_world,pz_world,inv_dist_std,dist_std\n")
    write_smplx(tmp_path / "SMPLX_NEUTRAL.npz")
    (tmp_path / "smplh" / "male").mkdir(parents=True)
    write_smplh(tmp_path / "smplh" / "male" / "model.npz")
    (tmp_path / "DATA" / "val").mkdir(parents=True)
    row = clip_to_row(Clip(id="cmu/35_01", source="cmu", motion=walk, split="val"))
    Dataset.from_list([row], features=FEATURES).to_parquet("DATA/val/0.parquet")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Viewer, "run", lambda viewer: viewer.stop())
    words = shlex.split(command)[1:]
    if words[0] == "view" and "--export" not in words:
        words += ["--no-open", "--port", str(_free_port())]
    if words[0] == "recover":
        words += ["--steps", "1"]
    if "--points" in words:
        monkeypatch.setattr("motion_grpo.cli.view.read_points", lambda path: torch.rand(50, 3).double().numpy())
    if "smplh/male/model.npz" in words:
        skeleton = Skeleton.from_smplh("smplh/male/model.npz")
        replace(moving_motion(5), skeleton=skeleton).save("walk.npz")
    assert run(monkeypatch, *words) == 0, capsys.readouterr().err
    written = [word for word in words[1:] if re.search(r"\.(glb|bvh|html|png)$", word)]
    assert all(Path(word).stat().st_size > 1000 for word in written)


def test_there_are_commands() -> None:
    assert {command.split()[1] for command in COMMANDS} == {"export", "recover", "compare", "view"}


def test_snippets_run(folder: Path) -> None:
    motion = Motion.load("walk.npz")
    assert load_trajectory("head.csv").duration > 1
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "exports.md").read_text(), re.DOTALL):
        exec(block, {"motion": motion})
    assert Path("walk.glb").is_file()
