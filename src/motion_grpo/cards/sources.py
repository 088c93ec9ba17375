"""Whose recordings the importers read: what cards of data sets have to say, and what may be shared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub.repocard import metadata_load

from motion_grpo.cards.templates import DataFacts, SourceFacts
from motion_grpo.data.loading import load_motions
from motion_grpo.data.mocap_pack import is_mocap_pack, pack_shards, source_of

_AMASS_LICENSE = "AMASS license: non-commercial scientific research, no redistribution"
_AMASS_CITATION = (
    "N. Mahmood, N. Ghorbani, N. F. Troje, G. Pons-Moll, M. J. Black, 'AMASS: Archive of Motion Capture as Surface "
    "Shapes', ICCV 2019, and the authors of the sub data set."
)
_BANDAI_ATTRIBUTION = (
    "(c) 2022 Bandai Namco Research Inc.; changed: retargeted to SMPL-H. M. Kobayashi, C.-C. Liao, K. Inoue, S. "
    "Yojima, M. Takahashi, 'Motion Capture Dataset for Practical Use of AI-based Motion Editing and Stylization', "
    "arXiv:2306.08861, 2023."
)
_BANDAI_URL = "https://github.com/BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset"
_CMU_ATTRIBUTION = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF "
    "EIA-0196217. Changed: retargeted to SMPL-H."
)
_FACTS = {
    "rich": SourceFacts(
        "rich",
        "RICH",
        "RICH license: non-commercial scientific research, no redistribution",
        "C.-H. P. Huang et al., 'Capturing and Inferring Dense Full-Body Human-Scene Contact', CVPR 2022.",
        "https://rich.is.tue.mpg.de/license.html",
    ),
    "adt": SourceFacts(
        "adt",
        "Aria Digital Twin",
        "Aria Digital Twin dataset license: non-commercial research",
        "X. Pan et al., 'Aria Digital Twin: A New Benchmark Dataset for Egocentric 3D Machine Perception', ICCV 2023.",
        "https://www.projectaria.com/datasets/adt/license/",
    ),
    "egoallo-hdf5": SourceFacts(
        "egoallo-hdf5",
        "AMASS as preprocessed by EgoAllo",
        _AMASS_LICENSE,
        f"{_AMASS_CITATION} B. Yi et al., 'Estimating Body and Hand Motion in an Ego-sensed World', CVPR 2025.",
        "https://amass.is.tue.mpg.de/license.html",
    ),
    "bandai1": SourceFacts(
        "bandai1", "Bandai-Namco-Research-Motiondataset-1", "CC BY-NC 4.0", _BANDAI_ATTRIBUTION, _BANDAI_URL
    ),
    "bandai2": SourceFacts(
        "bandai2", "Bandai-Namco-Research-Motiondataset-2", "CC BY-NC 4.0", _BANDAI_ATTRIBUTION, _BANDAI_URL
    ),
    "cmu": SourceFacts(
        "cmu",
        "CMU Graphics Lab Motion Capture Database",
        "Free for all uses",
        _CMU_ATTRIBUTION,
        "http://mocap.cs.cmu.edu",
    ),
}
# The pack's second part: more takes of the same database.
_FACTS["cmu2"] = replace(_FACTS["cmu"], name="cmu2")
_NOT_STATED = "not stated"
_RESTRICTED = {"amass", "egoallo-hdf5", "rich", "adt"}


def licenses_in(folder: Path) -> dict[str, str]:
    """What the rows of a data set say of their terms, by source."""
    licenses: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.parquet")):
        table = pq.read_table(path, columns=["source", "license"])
        licenses |= zip(table["source"].to_pylist(), table["license"].to_pylist(), strict=True)
    return licenses


def training_data(name: str | Sequence[str], sources: Sequence[str] | None = None, split: str = "train") -> DataFacts:
    """What a card says about the recordings that a model was trained on.

    Args:
        name: data set as for :func:`~motion_grpo.data.load_motions`, or the folder of a pack; or several.
        sources: only these; all when None.

    Raises:
        FileNotFoundError, ValueError: no such data set, or no recording of these sources.
    """
    if not isinstance(name, str):
        facts = [training_data(one, sources, split) for one in name]
        titles = " and ".join(dict.fromkeys(one.name for one in facts))
        return DataFacts(titles, tuple({source.name: source for one in facts for source in one.sources}.values()))
    folder = Path(name)
    if is_mocap_pack(folder):
        licenses = dict.fromkeys(map(source_of, pack_shards(folder, split)), _NOT_STATED)
        title = "open_mocap_smplh"
    else:
        rows: Any = load_motions(name, split, sources=sources, streaming=True).select_columns(["source", "license"])
        title, licenses = _title(folder) or name, {row["source"]: row["license"] for row in rows}
    licenses = {source: terms for source, terms in licenses.items() if sources is None or source in sources}
    if not licenses:
        raise ValueError(f"The split {split} of {name} has no recording of {', '.join(sources or ['any source'])}.")
    return DataFacts(title, tuple(source_facts(licenses)))


def source_facts(licenses: Mapping[str, str]) -> list[SourceFacts]:
    """What a card says about sources.

    Args:
        licenses: by source, what the rows' column ``license`` says; it counts where the source is not a known one.
    """
    return [_facts_of(name, license) for name, license in sorted(licenses.items())]


def is_restricted(name: str) -> bool:
    """Whether the license of an importer's data set, or of a source, keeps it from being passed on."""
    return name in _RESTRICTED or name.startswith("amass-")


def why_private(facts: SourceFacts) -> str | None:
    """Why a source must not be shared publicly; None where it may."""
    if is_restricted(facts.name):
        return f"the license of {facts.title} does not allow sharing it publicly ({facts.license})"
    if facts.license == _NOT_STATED:
        return f"nobody has stated the license of {facts.name} (--license)"
    return None


def hub_license(facts: list[SourceFacts]) -> str:
    """The identifier of the Hub for all sources together."""
    non_commercial = any(source.license == "CC BY-NC 4.0" for source in facts)
    return "cc-by-nc-4.0" if non_commercial and not any(map(why_private, facts)) else "other"


def _title(folder: Path) -> str | None:
    """Of a folder: what its card says, else its name; None where there is none."""
    if not folder.is_dir():
        return None
    card = folder / "README.md"
    return ((metadata_load(card) if card.is_file() else None) or {}).get("pretty_name") or folder.resolve().name


def _facts_of(name: str, license: str) -> SourceFacts:
    if name in _FACTS:
        return _FACTS[name]
    if name.startswith("amass-"):
        subset = name.removeprefix("amass-")
        url = "https://amass.is.tue.mpg.de/license.html"
        return SourceFacts(name, f"AMASS, {subset}", _AMASS_LICENSE, _AMASS_CITATION, url)
    return SourceFacts(name, name, license or _NOT_STATED, f"Authors: {_NOT_STATED}.", f"Address: {_NOT_STATED}.")
