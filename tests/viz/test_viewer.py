"""What the viewer shows, by its handles and by a browser."""

import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
import viser
from numpy.testing import assert_allclose

from motion_grpo.body import Skeleton
from motion_grpo.motion import Motion
from motion_grpo.viz.stage import Stage
from motion_grpo.viz.viewer import Viewer, _free_port, export_scene
from tests.io.test_bvh import with_hands
from tests.tiny import head_trajectory, moving_motion
from tests.viz.chromium import Page, chromium

EXAMPLE = Path(__file__).parents[2] / "examples" / "walk_turns.npz"


@pytest.fixture(scope="module")
def server():
    server = viser.ViserServer("127.0.0.1", _free_port(), verbose=False)
    yield server
    server.stop()


def shifted(motion: Motion, *meters: float) -> Motion:
    return replace(motion, root_positions=motion.root_positions + torch.tensor(meters))


def test_bones_follow_the_joints(server: viser.ViserServer) -> None:
    motion = replace(with_hands(moving_motion(20)), floor_height=0.3)
    stage = Stage(server, {"walk": motion})
    assert len(stage.times) == 20
    stage.show(11)
    (actor,) = stage._actors
    positions = np.stack([bone.position for bone in actor.skin.bones])
    assert_allclose(positions, motion.joints[11].numpy() - (0, 0, 0.3), atol=1e-6)
    turned = torch.tensor(np.stack([bone.wxyz for bone in actor.skin.bones]))
    R = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(turned))
    assert_allclose(R, motion.posed.rotmats[11], atol=1e-5)
    assert_allclose(stage.focus(11), motion.root_positions[11].numpy() - (0, 0, 0.3), atol=1e-6)


def test_numbers_are_those_of_the_moment(server: viser.ViserServer) -> None:
    truth = replace(moving_motion(10), floor_height=-1.0)
    stage = Stage(server, {"near": shifted(truth, 0.03, 0.04, 0.0), "truth": truth})
    lines = stage.read_out(6).splitlines()
    assert lines[0] == "**0.20 s** (frame 6)"
    eyes = float(stage._actors[1].eyes[6, 2])
    assert 2.2 < eyes < 2.9  # over a floor one meter down
    assert lines[2:] == [f"- near: eyes at {eyes:.2f} m, error 50 mm", f"- truth: eyes at {eyes:.2f} m"]
    stage.show(6)
    assert stage._actors[0].label.text == lines[2].removeprefix("- ")


def test_contacts_lie_on_the_floor_where_joints_touch_it(server: viser.ViserServer) -> None:
    motion = moving_motion(4)
    contacts = torch.zeros(4, 21)
    contacts[2, [6, 9]] = 0.9  # left ankle and foot
    stage = Stage(server, {"walk": replace(motion, contacts=contacts)})
    handle = stage._actors[0].contacts
    assert handle.batched_scales.max() < 0.01
    stage.show(2)
    assert np.flatnonzero(handle.batched_scales > 0.5).tolist() == [6, 9]
    assert_allclose(handle.batched_positions[6, :2], motion.joints[2, 7, :2], atol=1e-6)
    assert handle.batched_positions[:, 2].max() < 0.01


def test_motions_of_different_rates_and_starts_meet_in_time(server: viser.ViserServer) -> None:
    slow = moving_motion(12, fps=15.0)
    fast = replace(moving_motion(60, fps=60.0), timestamps=torch.arange(60).double() / 60 + 0.2)
    stage = Stage(server, {"slow": slow, "fast": fast})
    assert stage.times[0] == pytest.approx(0.2)
    assert 11 / 15 - 1 / 30 < stage.times[-1] < 11 / 15 + 1e-6
    assert [int(actor.frames[6]) for actor in stage._actors] == [6, 12]  # 0.4 s
    with pytest.raises(ValueError, match="the motions share no time"):
        Stage(server, {"a": slow, "b": replace(slow, timestamps=slow.timestamps + 100)})


def test_the_head_looks_where_it_looked(server: viser.ViserServer) -> None:
    trajectory = head_trajectory(30, floor_height=0.5)
    stage = Stage(server, {"walk": moving_motion(30)}, trajectory=trajectory, points=np.zeros((5, 3)))
    stage.show(17)
    frustum = server.scene.get_handle_by_name("/trajectory/head")
    assert_allclose(frustum.position, trajectory.p_world_cpf[17].numpy() - (0, 0, 0.5), atol=1e-6)
    R = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(torch.tensor(frustum.wxyz))).float()
    assert_allclose(R[:, 2], trajectory.R_world_cpf[17][:, 2], atol=1e-5)  # forward
    assert_allclose(R[:, 1], -trajectory.R_world_cpf[17][:, 1], atol=1e-5)  # down


def test_bodies_without_a_mesh_are_stick_figures_and_stand_beside_each_other(server: viser.ViserServer) -> None:
    other = replace(moving_motion(5), skeleton=replace(Skeleton.default(), name="smplh-male"))
    stage = Stage(server, {"mannequin": moving_motion(5), "sticks": other})
    stage.show(3)
    sticks = stage._actors[1]
    assert_allclose(sticks.skin.points[0], other.joints[3, [0, 1]], atol=1e-6)
    stage.arrange(True)
    assert np.linalg.norm(sticks.root.position) == pytest.approx(1.5)
    stage.set_visible("sticks", False)
    assert not sticks.root.visible
    with pytest.raises(ValueError, match="the viewer shows 1 to 6 motions, and got 0"):
        Stage(server, {})


def test_the_page_is_served_and_a_taken_port_is_said() -> None:
    viewer = Viewer({"walk": moving_motion(5)}, port=_free_port())
    try:
        with urllib.request.urlopen(viewer.url) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read()
        port = int(viewer.url.rpartition(":")[2])
        with pytest.raises(OSError, match=rf"port {port} is in use; give another one with --port"):
            Viewer({"walk": moving_motion(5)}, port=port)
    finally:
        viewer.stop()


def test_the_timeline_plays_by_the_clock() -> None:
    viewer = Viewer({"walk": moving_motion(30)}, port=_free_port(), side_by_side=True)
    try:
        viewer.advance(0.25)
        assert viewer._slider.value == 7
        assert "(frame 7)" in viewer._read_out.content
        viewer._speed.value = "2x"
        viewer.advance(0.1)  # 7.5 and 6
        assert viewer._slider.value == 13
        viewer._slider.value = 20
        viewer.advance(0.2)  # 32 of 30
        assert viewer._slider.value == 2
        viewer._playing.value = False
        viewer.advance(5.0)
        assert viewer._slider.value == 2
        bone = viewer.stage._actors[0].skin.bones[0]
        assert_allclose(bone.position, moving_motion(30).joints[2, 0], atol=1e-6)
    finally:
        viewer.stop()


# ---- in a browser


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the scene's pixels that differ: the lower edge, with the controls, does not count."""
    rows = slice(0, int(0.8 * len(before)))
    return float((np.abs(before[rows].astype(int) - after[rows].astype(int)).sum(-1) > 40).mean())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.slow
def test_a_scene_opens_from_disk_without_asking_anybody(page: Page, tmp_path) -> None:
    walk = Motion.load(EXAMPLE)
    names = ("root_rotmats", "root_positions", "body_rotmats", "contacts", "timestamps")
    motion = replace(walk, **{name: getattr(walk, name)[:90] for name in names})
    path = tmp_path / "scene.html"
    export_scene(path, {"walk": motion})
    assert path.stat().st_size < 3_000_000
    page.open(path.as_uri())
    page.wait("!!document.querySelector('canvas') && !!document.querySelector('.mantine-Slider-root')")
    page.click("button .tabler-icon-player-pause-filled")
    page.click(".mantine-Slider-root", 0.05)
    first = page.picture()
    assert first.std() > 5  # not blank
    page.click(".mantine-Slider-root", 0.9)
    later = page.picture()
    assert 0.002 < changed(first, later) < 0.5
    local = ("file:", "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(local)] == []
    assert page.errors == []
