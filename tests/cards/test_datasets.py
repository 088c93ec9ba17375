"""The card counts what lies in the folder, names the splits for the Hub, and refuses to be vague."""

import shutil
from dataclasses import replace

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from motion_grpo.cards import SourceFacts, write_dataset_card
from motion_grpo.cards.datasets import size_category
from motion_grpo.cards.templates import dataset_card
from motion_grpo.data import FEATURES, SCHEMA_VERSION, clip_to_row
from motion_grpo.data.schema import rows_to_table
from motion_grpo.data.splits import name_splits
from motion_grpo.metrics import METRIC_UNITS
from tests.tiny import moving_clip

TINY = SourceFacts("tiny", "Tiny Motions", "cc-by-4.0", "Recorded by nobody.", "https://example.org/tiny")
ROWS = SourceFacts("rows", "Rows", "other", "Cite Someone (2020).", "https://example.org/rows")
FACTS = {"title": "Test motions", "license": "other", "summary": "Motions: of a test.", "sources": [TINY, ROWS]}


@pytest.fixture
def folder(tmp_path):
    for split, lengths, source in (("train", (30, 60), "tiny"), ("test", (90,), "rows"), ("train", (1800,), "rows")):
        rows = [clip_to_row(replace(moving_clip(n), source=source, split=split)) for n in lengths]
        (tmp_path / split).mkdir(exist_ok=True)
        pq.write_table(rows_to_table(rows), tmp_path / split / f"{source}-00000.parquet")
    return tmp_path


def test_counts_and_splits(folder):
    path = write_dataset_card(folder, **FACTS, repo_id="me/motions", tags=["tiny"])
    card = DatasetCard.load(path)
    assert card.data.license == "other"
    assert card.data.pretty_name == "Test motions"
    assert {"motion", "smpl-h", "tiny"} <= set(card.data.tags)
    (config,) = card.data.configs
    assert [file["split"] for file in config["data_files"]] == ["train", "test"]
    assert card.data.motion_grpo_schema == SCHEMA_VERSION
    assert "4 clips, 0.02 hours" in card.text
    assert "| train | 3 | 1,890 | 0.02 |" in card.text
    assert "| test | 1 | 90 | 0.00 |" in card.text
    assert "**Tiny Motions** (`tiny`, 2 clips, 0.00 hours): **cc-by-4.0**. Recorded by nobody." in card.text
    assert "Cite Someone (2020)." in card.text
    assert 'load_motions("me/motions", "train")' in card.text
    assert card.data.task_categories == ["other"]
    assert card.data.size_categories == ["n<1K"]
    for name in FEATURES:
        assert f"| `{name}` | " in card.text
    assert "| `body_quats` | float32 (T, 21, 4) | " in card.text


def test_folder_loads_by_its_card(folder):
    write_dataset_card(folder, **FACTS)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(folder / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3, "test": 1}
    assert loaded["test"].features == FEATURES


def test_naming_splits_leaves_the_text(folder):
    name_splits(folder)
    assert DatasetCard.load(folder / "README.md").data.configs[0]["data_files"][1]["path"] == "test/*.parquet"
    write_dataset_card(folder, **FACTS)
    before = DatasetCard.load(folder / "README.md")
    (folder / "val").mkdir()
    (folder / "test" / "rows-00000.parquet").rename(folder / "val" / "rows-00000.parquet")
    name_splits(folder)
    after = DatasetCard.load(folder / "README.md")
    assert after.text.strip() == before.text.strip()
    assert [file["split"] for file in after.data.configs[0]["data_files"]] == ["train", "val"]
    assert after.data.tags == before.data.tags


def test_source_that_nobody_describes(folder):
    with pytest.raises(ValueError, match="has clips of rows, which no entry of sources describes"):
        write_dataset_card(folder, **FACTS | {"sources": [TINY]})


def test_empty_fact(folder):
    with pytest.raises(ValueError, match="needs tiny's url"):
        write_dataset_card(folder, **FACTS | {"sources": [replace(TINY, url=" "), ROWS]})
    with pytest.raises(ValueError, match="needs summary"):
        write_dataset_card(folder, **FACTS | {"summary": ""})
    assert not (folder / "README.md").exists()


def test_nothing_imported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was imported"):
        write_dataset_card(tmp_path, **FACTS)


def test_missing_fact_is_an_error():
    with pytest.raises(ValueError, match=r"The dataset card of Motions needs clips, .*summary"):
        dataset_card({"license": "other"}, {"title": "Motions"})


def test_tasks_are_of_the_splits_that_are_not_trained_on(folder):
    write_dataset_card(folder, **FACTS)
    tasks = yaml.safe_load((folder / "eval.yaml").read_text())
    assert tasks["name"] == "Test motions"
    assert [task["id"] for task in tasks["tasks"]] == [f"test/{metric}" for metric in METRIC_UNITS]
    assert {(task["config"], task["split"]) for task in tasks["tasks"]} == {("default", "test")}
    shutil.rmtree(folder / "test")
    write_dataset_card(folder, **FACTS)
    assert not (folder / "eval.yaml").exists()


@pytest.mark.parametrize(
    ("rows", "category"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (123_456, "100K<n<1M"), (10**10, "n>1B")]
)
def test_the_words_of_the_hub_for_sizes(rows, category):
    assert size_category(rows) == category
