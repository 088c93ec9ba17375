"""Who lacks an extra is told its name."""

import sys

import pytest
from motion_grpo.cli.main import COMMANDS, main

from motion_grpo.data.importers.egoallo_hdf5 import EgoAlloHdf5Importer
from motion_grpo.extras import extra
from motion_grpo.training.policy import MotionPolicy
from tests.tiny import tiny_pipeline


def test_the_extra_is_named():
    with pytest.raises(ModuleNotFoundError) as raised, extra("lora"):
        import nowhere.inside  # noqa: F401
    assert str(raised.value) == (
        "nowhere is not installed; it belongs to the extra 'lora': pip install \"motion-grpo[lora]\"."
    )


def test_the_outer_of_two_extras_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"extra 'train'"), extra("train"), extra("data"):
        import nowhere  # noqa: F401


@pytest.mark.parametrize("statement", ["import motion_grpo.nowhere", "from motion_grpo.extras import nowhere"])
def test_faults_of_this_package_are_not_taken_for_missing_extras(statement):
    with pytest.raises(ImportError, match="nowhere") as raised, extra("data"):
        exec(statement)
    assert "pip install" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.extra == "data"])
def test_commands_name_their_extra(name, tmp_path, monkeypatch, capsys):
    for module in list(sys.modules):
        if module.startswith(("motion_grpo.data", "motion_grpo.evaluation")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, f"motion_grpo.cli.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    arguments = {"data": ["pack", str(tmp_path), "-o", str(tmp_path)], "evaluate": ["--dataset", "x", "-o", "y"]}
    monkeypatch.setattr(sys, "argv", ["motion-grpo", name, *arguments[name]])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "motion-grpo: datasets is not installed; it belongs to the extra 'data': pip install \"motion-grpo[data]\".\n"
    )


def test_adapters_name_their_extra(tmp_path, monkeypatch):
    pipeline = tiny_pipeline()
    monkeypatch.setitem(sys.modules, "peft", None)
    for use in (lambda: pipeline.load_lora_weights(tmp_path), lambda: MotionPolicy(pipeline.denoiser, lora_r=4)):
        with pytest.raises(ImportError, match=r"peft is not installed; it belongs to the extra 'lora': pip install"):
            use()


def test_hdf5_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"h5py is not installed; it belongs to the extra 'hdf5': pip install"):
        list(EgoAlloHdf5Importer(tmp_path / "a.hdf5").jobs())
