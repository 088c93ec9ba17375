"""Files that say where the wrists were: the head's own CSV, and Project Aria's hand tracking."""

from pathlib import Path

import numpy as np
import pytest
import torch

from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.trajectory import (
    CONVENTIONS,
    HandObservations,
    HeadTrajectory,
    load_hands,
    load_segments,
    load_trajectory,
    read_hands_csv,
)
from tests.conftest import shared_path
from tests.trajectory.helpers import wxyz_xyz
from tests.trajectory.test_hand_observations import everywhere, recording, same

NAMES = ("x", "y", "z", "qw", "qx", "qy", "qz")


def write_csv(path: Path, head: HeadTrajectory, T: torch.Tensor, visible: np.ndarray, sides=("left", "right")) -> Path:
    """Head and wrists in one table, unseen wrists as empty fields."""
    header = ["timestamp", *NAMES] + [f"{s}_wrist_{n}" for s in sides for n in NAMES] + [f"{s}_visible" for s in sides]
    wxyz = matrix_to_wxyz(T[..., :3, :3])
    lines = [",".join(header)]
    for i in range(len(head)):
        q, p = head.T_world_cpf[i, :4].tolist(), head.T_world_cpf[i, 4:].tolist()
        fields = [f"{v:.9f}" for v in (head.timestamps[i].item(), *p, *q)]
        for side in sides:
            k = ("left", "right").index(side)
            wrist = [*T[i, k, :3, 3].tolist(), *wxyz[i, k].tolist()]
            fields += [f"{v:.9f}" for v in wrist] if visible[i, k] else [""] * 7
        fields += [str(int(visible[i, ("left", "right").index(side)])) for side in sides]
        lines.append(",".join(fields))
    path.write_text("\n".join(lines) + "\n")
    return path


class TestCsv:
    def test_the_heads_own_file(self, tmp_path):
        head, T = recording()
        visible = everywhere(60)
        visible[20:30, 0] = False
        path = write_csv(tmp_path / "walk.csv", head, T, visible)
        trajectory = load_trajectory(path, floor_height=0.0)
        hands = load_hands(path, trajectory)
        assert hands.timestamps is None  # a row is a pose
        same(hands, HandObservations.from_world(T, visible=visible))
        torch.testing.assert_close(read_hands_csv(path).timestamps, head.timestamps)
        same(
            load_hands(path, trajectory[10:50]).along(trajectory[10:50]),
            hands.timed_by(trajectory).along(trajectory[10:50]),
        )

    def test_one_hand_and_words_for_flags(self, tmp_path):
        head, T = recording()
        path = write_csv(tmp_path / "right.csv", head, T, everywhere(60), sides=("right",))
        lines = path.read_text().splitlines()
        lines[1:] = [
            line[: line.rindex(",")] + "," + word for line, word in zip(lines[1:], ["True", "false"] * 30, strict=True)
        ]
        path.write_text("\n".join(lines))
        hands = read_hands_csv(path)
        assert hands.visible[:, 1].tolist() == [True, False] * 30
        assert not hands.visible[:, 0].any()
        torch.testing.assert_close(hands.p_world_wrist[0, 1], T[0, 1, :3, 3])

    def test_confidence_and_units_of_time(self, tmp_path):
        head, T = recording(2)
        path = write_csv(tmp_path / "a.csv", head, T, everywhere(2))
        lines = path.read_text().splitlines()
        lines[0] = lines[0].replace("timestamp", "timestamp_ms") + ",left_confidence"
        lines[1:] = [line + ",0.25" for line in lines[1:]]
        path.write_text("\n".join(lines))
        hands = read_hands_csv(path)
        assert hands.confidence.tolist() == [[0.25, 1.0]] * 2
        torch.testing.assert_close(hands.timestamps, head.timestamps / 1000)

    def test_names_and_separators_of_other_loggers(self, tmp_path):
        """As a head's columns are understood."""
        head, T = recording(10)
        path = write_csv(tmp_path / "walk.csv", head, T, everywhere(10))
        expected = read_hands_csv(path)
        header, *rows = path.read_text().splitlines()
        names = []
        for name in header.split(","):
            owner, _, axis = name.rpartition("_")
            side = owner.split("_")[0].capitalize()
            other = f"{side}WristRot{axis[1:].upper()}" if axis[0] == "q" else f"{side}WristPos{axis.upper()}"
            names.append(other if "wrist" in owner else f"{side}Visible" if axis == "visible" else name)
        assert names[8:12] == ["LeftWristPosX", "LeftWristPosY", "LeftWristPosZ", "LeftWristRotW"]
        path.write_text("\n".join(["# a log", *(line.replace(",", ";") for line in [",".join(names), *rows])]))
        hands = load_hands(path, load_trajectory(path, floor_height=0.0))
        same(hands, expected)
        torch.testing.assert_close(read_hands_csv(path).timestamps, head.timestamps)

    def test_pieces_of_a_file_whose_times_have_no_unit(self, tmp_path):
        head, T = recording(60)
        path = write_csv(tmp_path / "walk.csv", head, T, everywhere(60))
        header, *rows = (line.split(",") for line in path.read_text().splitlines())
        for i, row in enumerate(rows):
            row[0] = str(round(float(row[0]) * 1e9) + (i >= 20) * 2_000_000_000)
        path.write_text("\n".join(",".join(row) for row in [header, *rows]))
        pieces = load_segments(path, floor_height=0.0)
        assert [len(piece) for piece in pieces] == [20, 40]
        hands = load_hands(path, pieces[1])
        torch.testing.assert_close(hands.timestamps[20:], pieces[1].timestamps)
        seen = hands.along(pieces[1])
        assert seen.visible.all()
        torch.testing.assert_close(seen.p_world_wrist, T[20:, :, :3, 3], rtol=0, atol=1e-4)

    def test_beside_a_head_in_other_axes(self, tmp_path):
        head, T = recording(10)
        path = write_csv(tmp_path / "walk.csv", head, T, everywhere(10))
        axes = CONVENTIONS["unity"]
        header, *rows = (line.split(",") for line in path.read_text().splitlines())
        R, p = axes.A_world.mT @ head.R_world_cpf.double() @ axes.A_cpf_head, head.p_world_cpf.double() @ axes.A_world
        for row, position, wxyz in zip(rows, p.tolist(), matrix_to_wxyz(R).tolist(), strict=True):
            row[1:8] = [str(value) for value in (*position, *wxyz)]
        path.write_text("\n".join(",".join(row) for row in [header, *rows]))
        trajectory = load_trajectory(path, convention="unity", floor_height=0.0)
        with pytest.raises(ValueError, match="wrists are read in a z-up world"):
            load_hands(path, trajectory)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace(",left_visible", ",left_seen"), "without a flag.*add the column left_visible"),
            (lambda text: text.replace("right_wrist_qz", "right_wrist_q"), "lacks the columns right_wrist_qz"),
            (lambda text: text.replace("_wrist_", "_hand_"), "has no wrists: a CSV has the columns left_wrist_x"),
            (lambda text: text.replace(",1,1\n", ",yes,1\n", 1), "Line 2 of .*'yes' in the column left_visible"),
            (lambda text: text[:-30], "Line 11 of"),
        ],
    )
    def test_bad_files(self, tmp_path, change, message):
        path = write_csv(tmp_path / "walk.csv", *recording(10), everywhere(10))
        path.write_text(change(path.read_text()))
        with pytest.raises(ValueError, match=message):
            read_hands_csv(path)

    def test_flagged_visible_without_a_pose(self, tmp_path):
        head, T = recording(10)
        visible = everywhere(10)
        visible[3, 1] = False
        path = write_csv(tmp_path / "walk.csv", head, T, visible)
        path.write_text(path.read_text().replace(",1,0\n", ",1,1\n"))
        with pytest.raises(
            ValueError, match=r"Frame 3 of .*walk\.csv has a right wrist that is flagged visible and is NaN"
        ):
            read_hands_csv(path)


def aria_head() -> HeadTrajectory:
    return load_trajectory(shared_path("samples/aria_gen1_mps"))


class TestAria:
    def test_the_real_recording(self):
        head = aria_head()
        path = shared_path("samples/aria_gen1_mps/wrist_and_palm_poses_v2.csv")
        hands = load_hands(path, head)
        assert hands.visible.sum(0).tolist() == [0, 6]
        assert (hands.confidence[hands.visible] > 0.5).all()
        seen = hands.along(head.resample(30))
        # Six observations at 10 Hz: all frames between them are seen.
        frames = seen.visible[:, 1].nonzero().flatten()
        assert 16 <= len(frames) <= 18
        assert frames.diff().eq(1).all()
        at = head.resample(30)
        R, p = at.R_world_cpf[frames], at.p_world_cpf[frames]
        in_cpf = (R.mT @ (seen.p_world_wrist[frames, 1] - p)[..., None]).squeeze(-1)
        # x left, y up, z forward: the right hand is to the right, below and before the eyes, its back seen from above.
        assert (in_cpf[:, 0] < -0.05).all()
        assert (in_cpf[:, 1] < -0.1).all()
        assert (in_cpf[:, 2] > 0).all()
        steps = in_cpf.diff(dim=0).norm(dim=-1)
        assert steps.max() < 0.1
        # Fingers (-x on the right) point away from the body, not back to the elbow; the palm (-y) faces inward.
        assert ((R.mT @ -seen.R_world_wrist[frames, 1, :, :1])[:, 2] > 0).all()
        assert ((R.mT @ -seen.R_world_wrist[frames, 1, :, 1:2])[:, 0] > 0).all()

    def test_without_normals_palms_face_inward_and_down(self):
        head = aria_head()
        first, second = (shared_path(f"samples/aria_gen1_mps/wrist_and_palm_poses{v}.csv") for v in ("", "_v2"))
        with pytest.warns(UserWarning, match="does not say which way palms face"):
            guessed = load_hands(first, head)
        known = load_hands(second, head)
        torch.testing.assert_close(guessed.p_world_wrist, known.p_world_wrist)
        R, R_known = (hands.R_world_wrist[hands.visible] for hands in (guessed, known))
        cosine = ((R.mT @ R_known).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        assert torch.rad2deg(cosine.acos()).max() < 60

    def test_hands_of_another_recording(self):
        with pytest.raises(
            ValueError, match=r"hand_tracking_results_v2\.csv were seen from 1762\.609 to .* outside of"
        ):
            load_hands(shared_path("samples/aria_gen1_mps/hand_tracking_results_v2.csv"), aria_head())

    def test_made_up_folder(self, tmp_path):
        """The device frame of the file, the folder, and the extrinsic by which the head was read."""
        head, T = recording(61)
        T_device_cpf = np.eye(4)
        T_device_cpf[:3, 3] = [0.05, -0.02, 0.01]
        T_world_cpf = torch.eye(4).repeat(61, 1, 1)
        T_world_cpf[:, :3, :3], T_world_cpf[:, :3, 3] = head.R_world_cpf, head.p_world_cpf
        T_world_device = T_world_cpf.double().numpy() @ np.linalg.inv(T_device_cpf)
        rows = np.concatenate([head.timestamps.numpy()[:, None], wxyz_xyz(T_world_device)[:, [4, 5, 6, 0, 1, 2, 3]]], 1)
        np.savetxt(
            tmp_path / "device.csv", rows, delimiter=",", header="timestamp,x,y,z,qw,qx,qy,qz", comments="", fmt="%.9f"
        )
        trajectory = load_trajectory(tmp_path / "device.csv", T_device_cpf=T_device_cpf, floor_height=0.0)
        names, columns = ["tracking_timestamp_us"], [np.round(head.timestamps.numpy()[::3] * 1e6)]
        T_device_wrist = np.linalg.inv(T_world_device)[::3, None] @ T[::3].double().numpy()
        for k, side in enumerate(("left", "right")):
            R, p = T_device_wrist[:, k, :3, :3], T_device_wrist[:, k, :3, 3]
            palm = p + R @ [(0.08, -0.02, 0.0), (-0.08, -0.02, 0.0)][k]
            names.append(f"{side}_tracking_confidence")
            columns.append(np.full(len(p), 0.9))
            for name, values in (
                ("t{}_{}_wrist", p),
                ("t{}_{}_palm", palm),
                ("n{}_{}_wrist", -R[..., 1]),
                ("n{}_{}_palm", -R[..., 1]),
            ):
                names += [name.format(axis, side) + "_device" for axis in "xyz"]
                columns += list(values.T)
        (tmp_path / "hand_tracking").mkdir()
        np.savetxt(
            tmp_path / "hand_tracking" / "wrist_and_palm_poses.csv",
            np.stack(columns, 1), delimiter=",", header=",".join(names), comments="", fmt="%.9f",
        )  # fmt: skip
        seen = load_hands(tmp_path, trajectory).along(trajectory)
        assert seen.visible.all()
        every_third = slice(0, None, 3)
        torch.testing.assert_close(seen.p_world_wrist[every_third], T[every_third, :, :3, 3], rtol=0, atol=1e-4)
        torch.testing.assert_close(seen.R_world_wrist[every_third], T[every_third, :, :3, :3], rtol=0, atol=1e-3)
        # Between them the pose is interpolated.
        torch.testing.assert_close(seen.p_world_wrist, T[..., :3, 3], rtol=0, atol=8e-3)
        with pytest.raises(
            ValueError, match=r"relative to a device, and .*walk\.csv was not read from a device's poses"
        ):
            load_hands(tmp_path, load_trajectory(write_csv(tmp_path / "walk.csv", head, T, everywhere(61))))

    def test_folder_without_hands(self, tmp_path):
        head, _ = recording(10)
        with pytest.raises(FileNotFoundError, match=r"holds no hand_tracking_results\.csv"):
            load_hands(tmp_path, head)
        with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.csv"):
            load_hands(tmp_path / "nowhere.csv", head)
