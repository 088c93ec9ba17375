"""The notebook runs from its first cell to its last, and shows what it says."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.packaging.environment import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
    assert "HeadTrajectory" in shown
    assert "srcdoc" in shown
    assert "plain:" in shown
    for name in ("walk.npz", "walk.bvh", "walk.glb", "walk.csv"):
        assert name in shown
        assert (Path(tmp_path) / name).stat().st_size > 1000
