"""Every importer is one by the Protocol, which a type checker would hold it to."""

from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

from motion_grpo.data import Importer, MocapPackImporter
from motion_grpo.data.importers.amass import AmassImporter
from motion_grpo.data.importers.aria import AdtImporter, AriaImporter
from motion_grpo.data.importers.asf import AsfImporter
from motion_grpo.data.importers.bvh import BvhImporter
from motion_grpo.data.importers.egoallo_hdf5 import EgoAlloHdf5Importer
from motion_grpo.data.importers.open_mocap import OpenMocapImporter
from motion_grpo.data.importers.rich import RichImporter

IMPORTERS = [
    AdtImporter, AmassImporter, AriaImporter, AsfImporter, BvhImporter, EgoAlloHdf5Importer, MocapPackImporter,
    OpenMocapImporter, RichImporter,
]  # fmt: skip


@pytest.mark.parametrize("kind", IMPORTERS)
def test_importers_are_importers(kind) -> None:
    folder = Path("somewhere")
    importer = kind((folder,) if kind is MocapPackImporter else folder)
    assert isinstance(importer, Importer)
    assert is_dataclass(kind)
    # Read-only there, and a field of the instance here: a class variable satisfies no property of a Protocol.
    assert isinstance(vars(Importer)["name"], property)
    assert "name" in {field.name for field in fields(kind)}
    assert importer.name
    with pytest.raises(FrozenInstanceError):
        importer.name = "other"
