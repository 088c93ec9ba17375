"""``motion-grpo live``, from a recording to files and receivers."""

import socket

import pytest
from motion_grpo.cli import live as command
from motion_grpo.cli.main import main
from pythonosc.osc_packet import OscPacket

from motion_grpo import EgoMotionPipeline, Motion
from tests.tiny import head_trajectory, tiny_pipeline


@pytest.fixture
def head(tmp_path, monkeypatch):
    """A recording of 40 poses; the shipped network is a tiny one."""
    pipeline = tiny_pipeline(window=128)
    monkeypatch.setattr(EgoMotionPipeline, "from_pretrained", classmethod(lambda cls, name: pipeline))
    path = tmp_path / "walk.csv"
    poses = head_trajectory(40)
    rows = ["timestamp,px,py,pz,qw,qx,qy,qz"]
    for time, pose in zip(poses.timestamps.tolist(), poses.T_world_cpf.tolist(), strict=True):
        rows.append(",".join(map(str, (time, *pose[4:], *pose[:4]))))
    path.write_text("\n".join(rows) + "\n")
    return path


def run(monkeypatch, *words) -> None:
    monkeypatch.setattr("sys.argv", ["motion-grpo", "live", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, 1)


def test_a_recording_becomes_a_file_and_a_stream(head, tmp_path, monkeypatch, capsys) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        to = f"127.0.0.1:{receiver.getsockname()[1]}"
        record = tmp_path / "live.npz"
        run(monkeypatch, head, "--fast", "--record", record, "--vmc", to, "--floor-height", "0", "--lag", "3")
        assert OscPacket(receiver.recv(65536)).messages[0].message.address == "/VMC/Ext/OK"
    said = capsys.readouterr().out
    assert f"goes to VMC at {to}, {record}; the body is 100 ms behind" in said
    assert "26 bodies of 40 poses, 0 left out, 0 restarts" in said
    assert len(Motion.load(record)) == 26


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Nobody would get the bodies; add --view"),
        (("--vmc", "localhost:no"), "localhost:no: the port must be a number from 1 to 65535"),
        (("--record", "x.doc"), "x.doc"),
    ],
)
def test_mistakes_are_one_sentence(words, message, head, monkeypatch, capsys) -> None:
    run(monkeypatch, head, "--fast", *words)
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("motion-grpo: ")
    assert message in error.splitlines()[-1]


def test_a_port_in_use_and_one_that_is_no_number(monkeypatch, capsys) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        run(monkeypatch, f"osc:{port}", "--record", "x.npz")
    assert f"UDP port {port} of 127.0.0.1 is in use" in capsys.readouterr().err
    run(monkeypatch, "osc:many", "--record", "x.npz")
    assert "osc:many: the port must be a number" in capsys.readouterr().err
    assert command.live.__doc__.startswith("Recover the body while the head moves")
