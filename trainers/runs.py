"""What the training scripts of this folder share: the command line, and a run from its folder to the Hub."""

import sys
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from motion_grpo.cli.train.dataset_arguments import DataArguments
from transformers import TrainingArguments
from trl import TrlParser

from motion_grpo.cards import record_run
from motion_grpo.cards.models import own_settings
from motion_grpo.training.hub_runs import HubTrainerMixin
from motion_grpo.training.output_folder import prepare_output


@dataclass
class RunArguments:
    """What becomes of the output folder."""

    resume: bool = field(
        default=False,
        metadata={"help": "Go on from the newest checkpoint in output_dir, else from what the run has pushed."},
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete the run that output_dir holds, and begin another there."}
    )


class Parser(TrlParser):
    """TRL's parser, whose ``--help`` shows first what is motion-grpo's and leaves out what would have no effect.

    Presets of the package go by their name: ``--config grpo_small.yaml``.

    Args:
        types: data classes to parse; the last one is the trainer's settings.
        without_effect: names of inherited settings that the trainer refuses.
        description: of the script; its first line is shown.
    """

    def __init__(self, types: Sequence[type], without_effect: Mapping[str, str], description: str) -> None:
        super().__init__(types, description=description.splitlines()[0])
        *scripts, settings = types
        self.own = {name for kind in scripts for name in (f.name for f in fields(kind))} | {"output_dir"}
        self.own |= {*own_settings(settings), "remove_unused_columns"}
        for action in self._actions:
            if action.dest in without_effect:
                action.help = SUPPRESS
        self.usage = "%(prog)s [--config FILE.yaml] --dataset_name DATA --output_dir DIR [--name value ...]"

    def format_help(self) -> str:
        """The settings of motion-grpo, then those of TRL and transformers."""
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        for title, own in (("motion-grpo", True), ("inherited from transformers and TRL", False)):
            formatter.start_section(title)
            formatter.add_arguments([action for action in self._actions if self._is_own(action) is own])
            formatter.end_section()
        return formatter.format_help()

    def parse_args_and_config(self, args: Iterable[str] | None = None, **options: Any) -> tuple[Any, ...]:
        """Parses the command line (or ``args``) over the file after ``--config``, which may be a preset's name."""
        words = list(sys.argv[1:] if args is None else args)
        if "--config" in words[:-1]:
            value = words.index("--config") + 1
            words[value] = str(config_path(words[value]))
        return super().parse_args_and_config(words, **options)

    def _is_own(self, action: Action) -> bool:
        return action.dest in self.own


def config_path(name: str) -> Path:
    """The file of this name, else the preset that is installed under it.

    Raises:
        FileNotFoundError: neither is there.
    """
    path, presets = Path(name), Path(str(resources.files("motion_grpo.configs")))
    if path.is_file():
        return path
    names = sorted(preset.name for preset in presets.glob("*.yaml"))
    if name in names:
        return presets / name
    raise FileNotFoundError(f"--config is {name!r}: there is no such file, and the presets are {', '.join(names)}.")


def parse(types: Sequence[type], without_effect: Mapping[str, str], description: str) -> tuple[Any, ...]:
    """The arguments of a script, from the command line and the file that ``--config`` names."""
    return Parser(types, without_effect, description).parse_args_and_config()


def prepare(run: RunArguments, args: TrainingArguments) -> None:
    """Sees to the output folder before anything is loaded; see ``prepare_output`` of the package."""
    prepare_output(args, resume=run.resume or args.resume_from_checkpoint is not None, overwrite=run.overwrite)


def train(trainer: HubTrainerMixin, data: DataArguments, model: object, run: RunArguments) -> None:
    """Trains, and leaves in the output folder and on the Hub what a finished run leaves.

    A run that was told to end (SIGTERM) writes its log and exits with status 143.
    """
    args = trainer.args
    record_run(args, data=asdict(data), model=asdict(model))
    checkpoint = trainer.checkpoint_to_resume() if run.resume else args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.was_terminated:
        trainer.save_log()
        sys.exit(143)
    trainer.save_run()
    if args.push_to_hub:
        trainer.push_to_hub()
