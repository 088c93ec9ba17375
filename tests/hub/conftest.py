"""A Hub for every test that asks for one, and processes that know of it and of nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from tests.hub.server import HubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path) -> Iterator[HubServer]:
    """A running Hub where ``hf_me`` is the token of ``me``, ``hf_you`` that of ``you``."""
    (tmp_path / "objects").mkdir()
    with HubServer(tmp_path / "objects", {"hf_me": "me", "hf_you": "you"}) as server:
        yield server
    assert server.unknown == []


@pytest.fixture
def online(server, monkeypatch, tmp_path) -> HubServer:
    """The same, with this process pointed at it as ``me``; huggingface_hub reads its settings when it is imported."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    files = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    sleep = time.sleep  # a client waits a second and more before it tries again
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    return server


@pytest.fixture
def api(online) -> HfApi:
    return HfApi(endpoint=online.url, token="hf_me")


@pytest.fixture
def surroundings(server, tmp_path) -> Callable[..., dict[str, str]]:
    """Environment variables of a process that knows of this Hub; ``changes`` set and (None) unset more."""

    def build(home: str = "home", **changes: str | None) -> dict[str, str]:
        settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / home), "HF_TOKEN": "hf_me"}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": None}
        settings |= {"PYTHONPATH": str(ROOT), **changes}
        known = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return {key: value for key, value in (known | settings).items() if value is not None}

    return build


@pytest.fixture
def fresh_process(surroundings) -> Callable[..., dict]:
    """Runs ``tests/hub/processes/NAME.py`` in a process of its own and returns the JSON that it prints last.

    Its home is HOME/, so that processes share a cache or do not; ``environment`` may set and (None) unset variables.
    """

    def run(name: str, *arguments: object, home: str = "home", **environment: str | None) -> dict:
        command = [sys.executable, str(Path(__file__).parent / "processes" / f"{name}.py"), *map(str, arguments)]
        result = subprocess.run(
            command,
            env=surroundings(home, **environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run
