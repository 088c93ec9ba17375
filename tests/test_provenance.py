"""Digests and commits that tell results apart, and where they come from."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from motion_grpo import provenance
from motion_grpo.provenance import code_version, dataset_facts, sha256_of, weights_digest
from tests.tiny import moving_motion, write_shard


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_has_a_commit_and_an_installed_package_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "src" / "motion_grpo"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    git(tmp_path / "checkout", "init", "-q")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "-q", "-m", "x")
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    commit = git(tmp_path / "checkout", "rev-parse", "HEAD")
    assert code_version()["commit"] == commit
    (package / "a.py").write_text("a = 2\n")
    assert code_version()["commit"] == f"{commit}-dirty"
    # In a virtual environment inside somebody else's repository.
    installed = tmp_path / "checkout" / ".venv" / "lib" / "site-packages" / "motion_grpo"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "_PACKAGE", installed)
    assert set(code_version()) == {"version"}


def test_data_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name, "cmu", "train", [moving_motion(20)])
    same = [dataset_facts(str(tmp_path / name))["dataset_sha256"] for name in ("a", "b")]
    assert same[0] == same[1]
    write_shard(tmp_path / "b", "cmu", "train", [moving_motion(21)])
    assert dataset_facts(str(tmp_path / "b")) != {"dataset": "b", "dataset_sha256": same[0]}


def test_digests_are_of_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    assert weights_digest(tmp_path) == sha256_of(tmp_path.iterdir()) == hashlib.sha256(b"12").hexdigest()
    with pytest.raises(FileNotFoundError, match="holds no safetensors"):
        weights_digest(tmp_path / "none")
