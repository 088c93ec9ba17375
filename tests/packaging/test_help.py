"""The list of commands: at once, and what the commands say of themselves."""

import inspect
import subprocess
import sys

import pytest
from motion_grpo.cli.main import COMMANDS, make_app


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_those_of_the_commands(name):
    app = make_app(name)
    if app.registered_groups:
        says = app.registered_groups[0].typer_instance.info.help
    else:
        says = inspect.getdoc(app.registered_commands[0].callback).splitlines()[0]
    assert says == COMMANDS[name].summary


def test_help_lists_every_command_and_imports_nothing_heavy():
    script = "import sys; sys.argv = ['motion-grpo', '--help']; from motion_grpo.cli.main import main\n"
    script += "try: main()\nfinally: print(sorted({'torch', 'diffusers', 'numpy', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    *text, imported = result.stdout.splitlines()
    assert imported == "[]"
    for name, command in COMMANDS.items():
        assert any(name in line and command.summary[:40] in line for line in text)
    assert any("motion-grpo recover head.csv -o walk.npz" in line for line in text)


def test_the_root_imports_what_is_asked_for():
    script = "import sys, motion_grpo; assert set(motion_grpo.__all__) <= set(dir(motion_grpo))\n"
    script += "print({'torch', 'diffusers', 'numpy'} & set(sys.modules))\n"
    script += "from motion_grpo import load_trajectory; print('diffusers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["set()", "False"]


def test_the_root_has_what_it_says():
    import motion_grpo

    assert [getattr(motion_grpo, name).__name__ for name in motion_grpo.__all__] == motion_grpo.__all__
    with pytest.raises(AttributeError, match="module 'motion_grpo' has no attribute 'nothing'"):
        motion_grpo.nothing  # noqa: B018
