"""Messages of the library in terms of a command's options."""

import inspect
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from motion_grpo.cli import head_options
from motion_grpo.cli.main import make_app
from typer.main import get_command

import motion_grpo.trajectory
from motion_grpo import load_trajectory


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Give load_trajectory(path, convention='openxr'), or 'unity'.", "Give --convention 'openxr', or 'unity'."),
        ("Give load_trajectory(path, floor_height=...).", "Give --floor-height."),
        ("world_uid=... is for those only.", "--world is for those only."),
        ("with load_segments(path).", "with --split."),
        ("pass it with vrs=walk.vrs", "pass it with --vrs walk.vrs"),
        ("Both T_device_cpf and vrs=... say", "Both --T-device-cpf and --vrs say"),
        ("a device at 30 fps", "a device at 30 fps"),
    ],
)
def test_arguments_become_options(message, shown):
    assert head_options.in_options(message) == shown


def test_every_argument_is_an_option_of_the_commands():
    arguments = set(inspect.signature(load_trajectory).parameters) - {"path", "points"}
    assert arguments == set(head_options._OPTIONS)
    for command, missing in (("recover", set()), ("score", {"--floor-height"})):
        options = {o for p in get_command(make_app(command)).commands[command].params for o in p.opts}
        assert set(head_options._OPTIONS.values()) - options == missing


def test_no_message_about_trajectories_leaves_an_argument_untranslated():
    source = "".join(path.read_text() for path in Path(motion_grpo.trajectory.__file__).parent.rglob("*.py"))
    calls = re.findall(r"load_trajectory\(path, (\w+)=", source) + re.findall(r'giving\(f?["\'](\w+)=', source)
    assert len(calls) > 5
    assert set(calls) <= set(head_options._OPTIONS)


def test_warnings_come_last_and_once(capsys):
    @head_options.plain_messages()
    def work() -> None:
        for _ in range(2):
            warnings.warn("the floor; give floor_height=...", stacklevel=1)
        warnings.warn("of no interest to users", DeprecationWarning, stacklevel=1)
        assert capsys.readouterr().err == ""
        raise ValueError("leave out fps=...")

    with pytest.raises(ValueError, match="leave out --fps"):
        work()
    assert capsys.readouterr().err == "warning: the floor; give --floor-height\n"


def test_an_extrinsic_may_be_numbers_or_a_file(tmp_path):
    matrix = np.eye(4)
    np.savetxt(tmp_path / "T.txt", matrix)
    np.savetxt(tmp_path / "T.csv", matrix, delimiter=",")
    for path in (tmp_path / "T.txt", tmp_path / "T.csv"):
        np.testing.assert_array_equal(head_options.read_T_device_cpf(str(path)), matrix)
    np.testing.assert_array_equal(head_options.read_T_device_cpf("1 0 0 0, 0.1 0 0"), [1, 0, 0, 0, 0.1, 0, 0])
    assert head_options.read_T_device_cpf(None) is None
    with pytest.raises(ValueError, match=r"--T-device-cpf is 'nowhere.txt'"):
        head_options.read_T_device_cpf("nowhere.txt")
