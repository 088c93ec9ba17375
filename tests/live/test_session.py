"""Sources, and what runs between them and the sinks."""

import logging
import socket
import time

import pytest
import torch
from pythonosc.osc_message_builder import OscMessageBuilder
from torch.testing import assert_close

from motion_grpo.live.session import run
from motion_grpo.live.sources import OpenXrSource, OscSource, RecordingSource
from motion_grpo.streaming import BodyPose, EgoMotionStream, StreamConfig
from motion_grpo.trajectory.conventions import CONVENTIONS
from tests.tiny import head_poses, head_trajectory, tiny_pipeline

CONFIG = StreamConfig(lag=2, num_inference_steps=1, window=16, start_after=4)


class Kept:
    def __init__(self) -> None:
        self.poses: list[BodyPose] = []

    def send(self, pose: BodyPose) -> None:
        self.poses.append(pose)

    def close(self) -> None:
        pass


class ComesAndGoes(Kept):
    def send(self, pose: BodyPose) -> None:
        super().send(pose)
        if 5 <= len(self.poses) < 9:
            raise ConnectionResetError("gone")


def stream() -> EgoMotionStream:
    return EgoMotionStream(tiny_pipeline(), CONFIG)


def send(port: int, address: str, *values: float | str) -> None:
    message = OscMessageBuilder(address)
    for value in values:
        message.add_arg(value)
    packet(port, message.build().dgram)


def packet(port: int, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, ("127.0.0.1", port))


def next_pose(source: OscSource):
    end = time.monotonic() + 10
    for sample in source:
        if sample is not None:
            return sample
        assert time.monotonic() < end
    return None


def test_a_recording_goes_through_and_a_sink_that_goes_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    steady, shaky = Kept(), ComesAndGoes()
    source = RecordingSource(head_trajectory(30), in_real_time=False)
    with caplog.at_level(logging.WARNING):
        report = run(source, stream(), {"steady": steady, "shaky": shaky})
    assert report.poses == 30
    assert report.bodies == len(steady.poses) == len(shaky.poses) == 27
    assert caplog.messages == ["shaky cannot be reached (gone); the stream goes on.", "shaky is back."]
    assert 0 < report.milliseconds(0.5) <= report.milliseconds(0.99)


def test_a_recording_in_real_time_takes_its_time() -> None:
    began = time.monotonic()
    report = run(RecordingSource(head_trajectory(16)), stream(), {})
    assert time.monotonic() - began >= 0.5
    assert 1 <= report.poses <= 16


def test_poses_come_by_osc_in_either_convention() -> None:
    source = OscSource(0, convention=CONVENTIONS["openxr"])
    send(source.port, "/motion_grpo/head", 1.0, 1.6, -2.0, 1.0, 0.0, 0.0, 0.0, 12.5)
    sample = next_pose(source)
    assert sample.timestamp == 12.5
    # OpenXR: x right, y up, -z forward; here: x forward, y left, z up.
    assert_close(sample.T_world_cpf[:3, 3], torch.tensor([2.0, -1.0, 1.6], dtype=torch.float64))
    send(source.port, "/VMC/Ext/Hmd/Pos", "serial", 1.0, 1.6, 2.0, 0.0, 0.0, 0.0, 1.0)
    sample = next_pose(source)
    assert_close(sample.T_world_cpf[:3, 3].float(), torch.tensor([2.0, -1.0, 1.6]))
    assert_close(sample.T_world_cpf[:3, 2].float(), torch.tensor([1.0, 0.0, 0.0]))  # it looks ahead
    send(source.port, "/motion_grpo/left_wrist", 0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.0)
    send(source.port, "/motion_grpo/head", 1.0, 1.6, -2.0, 1.0, 0.0, 0.0, 0.0)
    left, right = next_pose(source).hands
    assert_close(left[:3, 3].float(), torch.tensor([0.1, 0.2, 0.3]))
    assert right is None
    source.close()


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x00", b"no osc at all", b"/motion_grpo/head\x00\x00\x00,fff\x00\x00\x00\x00\x01", b"#bundle\x00\x01\x02"],
)
def test_malformed_packets_are_left_out(bad: bytes) -> None:
    source = OscSource(0)
    packet(source.port, bad)
    send(source.port, "/motion_grpo/head", 0.0, 0.0, 1.5, 1.0, 0.0, 0.0, 0.0)
    assert float(next_pose(source).T_world_cpf[2, 3]) == 1.5
    source.close()


def test_messages_that_are_no_poses_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    source = OscSource(0)
    with caplog.at_level(logging.WARNING):
        send(source.port, "/motion_grpo/head", 0.0, 0.0, 1.5)
        send(source.port, "/motion_grpo/head", 0.0, 0.0, float("nan"), 1.0, 0.0, 0.0, 0.0)
        send(source.port, "/motion_grpo/head", 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0)
        send(source.port, "/motion_grpo/head", *"seven__")
        send(source.port, "/somebody/else", 1.0)
        send(source.port, "/motion_grpo/head", 0.0, 0.0, 1.7, 1.0, 0.0, 0.0, 0.0)
        assert float(next_pose(source).T_world_cpf[2, 3]) == pytest.approx(1.7)
    assert source.left_out == 4
    assert "it must have 7 or 8 numbers" in caplog.text
    source.close()


def test_a_port_in_use_is_told_in_a_sentence() -> None:
    source = OscSource(0)
    with pytest.raises(OSError, match=f"UDP port {source.port} of 127.0.0.1 is in use"):
        OscSource(source.port)
    source.close()


def test_osc_poses_become_bodies() -> None:
    source, kept = OscSource(0), Kept()
    poses = iter(head_poses(12))

    def send_next(*_) -> None:
        T = next(poses, None)
        if T is None:
            source.close()
            return
        sent.append(T)
        q = torch.tensor([1.0, 0.0, 0.0, 0.0])
        send(source.port, "/motion_grpo/head", *T[:3, 3].tolist(), *q.tolist(), (len(sent) - 1) / 30)

    sent: list[torch.Tensor] = []
    send_next()
    pushing = stream()
    real = pushing.push
    pushing.push = lambda *pose: (real(*pose), send_next())[0]
    report = run(source, pushing, {"kept": kept}, seconds=20)
    assert report.poses == 12
    assert len(kept.poses) == 9


def test_without_a_runtime_openxr_is_one_sentence() -> None:
    pytest.importorskip("xr")
    with pytest.raises(OSError, match=r"OpenXR gives no head poses here \(.*\); start a runtime"):
        OpenXrSource()
