"""The page to try it in: what it makes of what is given, and a browser that goes from an upload to a download."""

import urllib.request
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import yaml
from motion_grpo.cli import app
from motion_grpo.cli.app import DEVICES, EXAMPLES, GUIDANCE, IN_WORDS, Recoverer

from motion_grpo import Motion
from motion_grpo.motion.formats import FORMATS
from motion_grpo.viz.viewer import _free_port
from tests.packaging.environment import ROOT
from tests.viz.chromium import chromium
from tools.build_space import build as build_space

FOLDER = ROOT / "examples"
GIVEN = {
    "upload": None, "example": None, "device": next(iter(DEVICES)), "axes": None, "floor": "", "stature": "",
    "samples": 1, "steps": 2, "guidance": "none", "seed": 0,
}  # fmt: skip
DEVICE_LOGS = {
    "plain.csv": {},
    "aria_gen1/closed_loop_trajectory.csv": {"device": "Project Aria Gen 1, Digital Twin", "floor": "-1.65"},
    "aria_gen2/closed_loop_trajectory.csv": {"device": "Project Aria Gen 2", "floor": "-1,65"},
    "quest.csv": {"device": "Quest, OpenXR, WebXR, Vision Pro"},
    "unity.csv": {"device": "Unity"},
    "arkit.csv": {"device": "iPhone or iPad, landscape (ARKit)"},
    "tum.txt": {"device": "camera in a z-up world (SLAM, TUM)"},
    "euroc.csv": {"device": IN_WORDS, "axes": "forward left up / up right forward"},
}


@pytest.fixture(scope="module")
def recoverer() -> Recoverer:
    return Recoverer(FOLDER)


def test_an_example_is_shown_with_its_truth(recoverer, monkeypatch):
    shown = []
    monkeypatch.setattr(app, "export_scene", lambda path, motions: shown.append(motions) or path.write_text("<b>"))
    motions, scene, said = recoverer.recover(**GIVEN | {"example": list(EXAMPLES)[1], "samples": 2})
    assert [list(names) for names in shown] == [["sample 0", "sample 1", "truth"]]
    assert len(motions) == 2
    assert 'srcdoc="&lt;b&gt;"' in scene
    assert said.startswith("4.7 s")


@pytest.mark.parametrize("name", DEVICE_LOGS)
def test_every_device_is_understood(name, recoverer, monkeypatch):
    monkeypatch.setattr(app, "_scene", lambda *motions: "")
    given = GIVEN | {"upload": str(FOLDER / "devices" / name), "floor": "0"} | DEVICE_LOGS[name]
    ((motion,), _, said) = recoverer.recover(**given)
    eyes = Motion.load(FOLDER / "brisk_walk.npz").joints[:, 15, 2]
    assert (motion.above_floor().joints[:, 15, 2] - eyes).abs().max() < 0.08
    assert "Look at" not in said


def test_what_is_doubtful_is_said(recoverer, monkeypatch):
    monkeypatch.setattr(app, "_scene", lambda *motions: "")
    _, _, said = recoverer.recover(**GIVEN | {"upload": str(FOLDER / "devices" / "plain.csv")})
    assert "**Look at**" in said
    assert "floor" in said.lower()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Upload a trajectory, or pick an example"),
        ({"upload": "nowhere.csv"}, "nowhere.csv"),
        ({"upload": str(FOLDER / "brisk_walk.npz")}, "brisk_walk.npz"),
        ({"example": list(EXAMPLES)[1], "stature": "tall"}, "Stature must be a number of meters, got 'tall'"),
        ({"example": list(EXAMPLES)[1], "stature": "180"}, "180"),
        ({"upload": str(FOLDER / "brisk_walk.csv"), "device": IN_WORDS}, "Say in words where the axes point"),
    ],
)
def test_bad_input_is_one_sentence(changes, message, recoverer):
    with pytest.raises(gr.Error) as raised:
        recoverer.recover(**GIVEN | changes)
    assert message in raised.value.message


def test_long_recordings_are_refused(recoverer, monkeypatch):
    monkeypatch.setattr(app, "MAX_SECONDS", 3)
    with pytest.raises(gr.Error, match="5 s long, and this page takes 3 s"):
        recoverer.recover(**GIVEN | {"example": list(EXAMPLES)[1]})


@pytest.mark.parametrize("suffix", [".bvh", ".glb", ".csv"])
def test_motions_are_exported(suffix, recoverer):
    motion = Motion.load(FOLDER / "brisk_walk.npz")
    (alone,) = recoverer.export([motion], suffix)
    assert Path(alone).name == f"motion{suffix}"
    assert [Path(path).name for path in recoverer.export([motion, motion], suffix)] == [
        f"motion_0{suffix}", f"motion_1{suffix}",
    ]  # fmt: skip
    assert Path(alone).stat().st_size > 1000
    with pytest.raises(gr.Error, match="Recover a motion first"):
        recoverer.export(None, suffix)


def test_guidance_reaches_the_pipeline(recoverer, monkeypatch):
    monkeypatch.setattr(app, "_scene", lambda *motions: "")
    asked = []
    call = type(recoverer.pipe).__call__
    monkeypatch.setattr(
        type(recoverer.pipe),
        "__call__",
        lambda pipe, head, **options: asked.append(options) or call(pipe, head, **options),
    )
    for choice in GUIDANCE:
        recoverer.recover(**GIVEN | {"example": list(EXAMPLES)[1], "guidance": choice})
    assert [options["guidance"] and options["guidance"].penetration for options in asked] == [None, 0.0, 30.0]


def test_the_folder_of_a_space(tmp_path):
    build_space(tmp_path, "motion-grpo[space]==1.0")
    _, header, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == gr.__version__
    assert len(card["short_description"]) <= 60
    assert (tmp_path / card["app_file"]).is_file()
    assert "{" not in text
    assert {path.stem for path in (tmp_path / "examples").glob("*.csv")} == set(EXAMPLES.values())
    assert (tmp_path / "requirements.txt").read_text() == "motion-grpo[space]==1.0\n"


@pytest.mark.slow
def test_from_an_upload_to_a_download_in_a_browser(tmp_path):
    url = app.serve(FOLDER, _free_port(), open_browser=False, block=False)
    with chromium(tmp_path, (1400, 1000)) as page:
        page.open(url)
        page.wait("!!document.querySelector('#recover') && !!document.querySelector('input[type=file]')")
        page.choose_file("input[type=file]", FOLDER / "devices" / "plain.csv")
        page.wait("document.body.innerText.includes('plain.csv')")
        page.evaluate("document.querySelector('#recover').click()")
        page.wait("!!document.querySelector('#scene iframe')")
        inside = "document.querySelector('#scene iframe').contentDocument"
        page.wait(f"!!{inside}.querySelector('canvas') && !!{inside}.querySelector('.mantine-Slider-root')")
        page.wait("document.querySelector('#said').innerText.includes('4.7 s')")
        assert np.asarray(page.picture()).std() > 5
        page.evaluate("document.querySelector('#export').click()")
        page.wait("!!document.querySelector('#files a')")
        address = page.evaluate("document.querySelector('#files a').href")
        with urllib.request.urlopen(address) as answer:
            assert answer.read(4) == b"glTF"
        assert [one for one in page.requests if not one.startswith((url, "data:", "blob:"))] == []
        assert page.errors == []
    gr.close_all()


def test_all_formats_are_offered():
    page = app.build(FOLDER)
    (offered,) = (block for block in page.blocks.values() if getattr(block, "elem_id", None) == "suffix")
    assert [value for _, value in offered.choices] == list(FORMATS)
