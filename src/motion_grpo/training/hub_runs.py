"""What the trainers share: where to resume, how to evaluate, weights as diffusers writes them, and what is pushed."""

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn, cast

from accelerate.utils import broadcast_object_list
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import CommitInfo, HfApi
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy

from motion_grpo.body import Skeleton
from motion_grpo.cards import write_run_card
from motion_grpo.cards.models import CURVES_FILE, KINDS, NOT_EVALUATED, RESULTS, draw_curves, without_places
from motion_grpo.data import Clip
from motion_grpo.files import write_text
from motion_grpo.hub import fetch, make_repo, push_folder
from motion_grpo.runs import LOG_FILE, RUN_FILE, TRAINER_STATE_FILE, newest_checkpoint

_LAST_CHECKPOINT = "last-checkpoint"
_LOGGER = logging.getLogger(__name__)


def pushed_checkpoint(repo_id: str, revision: str | None = None, token: str | None = None) -> tuple[str, str] | None:
    """The newest checkpoint that a run has pushed: commit, and folder in it; None where there is none.

    ``hub_strategy`` ``checkpoint`` pushes it as ``last-checkpoint``, ``all_checkpoints`` as ``checkpoint-STEP``.
    """
    commit = fetch(repo_id, [f"*checkpoint*/{TRAINER_STATE_FILE}"], revision=revision, token=token)
    steps = {
        path.parent.name: json.loads(path.read_text())["global_step"]
        for path in commit.glob(f"*/{TRAINER_STATE_FILE}")
        if re.fullmatch(rf"{_LAST_CHECKPOINT}|checkpoint-\d+", path.parent.name)
    }
    return (commit.name, max(steps, key=steps.__getitem__)) if steps else None


if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class HubTrainerMixin(_Base):
    """What a run leaves in its output folder, and on the Hub; comes before a transformers Trainer among the bases.

    The output folder holds what the training is for in ``pipeline/`` or ``model/``, and beside it the card, its curves,
    ``training_log.json``, ``run.json`` and the checkpoints. On the Hub what the training is for lies at the top, so
    that ``from_pretrained("me/x")`` loads it; checkpoints are there only if ``hub_strategy`` asks for them, each in a
    folder of its own, and nothing but they holds pickles. Every push is one commit; those of a running training go on
    in the background, and one that fails does not end it.
    """

    kind: str
    """One of :data:`motion_grpo.cards.models.KINDS`."""
    diffusers_model: ModelMixin
    """What is trained, whatever accelerate wraps it in."""
    skeleton: Skeleton
    """Body of the data set's betas."""

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(cast(str, self.args.output_dir))

    def save_result(self, folder: str | Path) -> None:
        """Writes what the training is for. To be called by all processes; the first one writes."""
        raise NotImplementedError

    def card_facts(self) -> dict[str, Any]:
        """What the card says of this kind of run beyond what all runs have; see :func:`write_run_card`."""
        return {}

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset: str | None = None,
        finetuned_from: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        **others: object,
    ) -> None:
        """Writes the output folder's README.md (see :func:`~motion_grpo.cards.write_run_card`); every push does.

        Args:
            model_name: the output folder's name, or that on the Hub, when None.
            dataset: what it was trained on; what ``run.json`` says when None. TRL's ``dataset_name`` is the same.
            finetuned_from: the model it started from; likewise.
            license: of the weights; follows from the data when None.
            tags: beside the usual ones.
            others: of transformers', without effect.

        Raises:
            ValueError: nobody has said what it was trained on.
        """
        if self.is_world_process_zero():
            given = {} if finetuned_from is None else {"base_model": finetuned_from}
            write_run_card(
                self.kind,
                self.diffusers_model,
                self.args,
                self.state.log_history,
                evaluation=NOT_EVALUATED,
                name=model_name,
                dataset=dataset or others.get("dataset_name"),
                body=self.skeleton.name,
                license=license,
                tags=[tags] if isinstance(tags, str) else tags or (),
                **self.card_facts() | given,
            )

    @property
    def was_terminated(self) -> bool:
        """Whether somebody asked the run to end before its end."""
        return False

    def measure(self, eval_dataset: object) -> dict[str, float]:
        """Metrics by name, of what :meth:`evaluate` was given or, where that is None, the trainer."""
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measures, and logs, how well the model does; see :meth:`measure`.

        Args:
            eval_dataset: in place of the trainer's own; several by name are measured one by one, as
                ``eval_NAME_METRIC``.
            ignore_keys: of transformers', without effect.
            metric_key_prefix: goes before the metrics' names.

        Raises:
            ValueError: nothing to evaluate, or of a kind that this trainer cannot.
        """
        if isinstance(eval_dataset, Mapping):
            found: dict[str, float] = {}
            for name, part in eval_dataset.items():
                found |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return found
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measure(eval_dataset).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(self, *arguments: object, **options: object) -> NoReturn:
        """Refused: what is trained is used through the class that loads it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no predict(): save_result(folder) writes what {KINDS[self.kind]}."
            "from_pretrained(folder) loads, and evaluate(eval_dataset=...) measures it."
        )

    def save_log(self) -> None:
        """Writes ``training_log.json`` and its curves into the output folder."""
        if self.is_world_process_zero():
            self._write_log()
            draw_curves(self.kind, self.state.log_history, self.output)

    def save_run(self) -> None:
        """Writes into the output folder what a finished run leaves. To be called by all processes."""
        self.save_result(self.output / RESULTS[self.kind])
        if self.is_world_process_zero():
            self._write_log()
            self.create_model_card()  # draws the curves too

    def checkpoint_to_resume(self) -> str | None:
        """The newest checkpoint in the output folder or, where it has none and the run is pushed, on the Hub.

        To be called by all processes: the first one decides. None where the run has not begun.
        """
        found: list[tuple[str | None, str] | None] = [None]
        if self.is_world_process_zero():
            if (local := newest_checkpoint(self.output)) is not None:
                found = [(None, local)]
            elif self.args.push_to_hub:
                found = [pushed_checkpoint(self.hub_model_id, self.args.hub_revision, self.args.hub_token)]
        [(checkpoint, repo_id)] = broadcast_object_list([(found[0], self.hub_model_id)])
        if checkpoint is None:
            return None
        commit, name = checkpoint
        if commit is None:
            return name
        return str(fetch(repo_id, [f"{name}/*"], revision=commit, token=self.args.hub_token) / name)

    def write_weights(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes a checkpoint's weights.

        Args:
            folder: the checkpoint.
            state_dict: those of the model, where its parameters are divided among processes.
        """
        raise NotImplementedError

    def read_weights(self, folder: Path) -> None:
        """Reads what :meth:`write_weights` wrote into what is trained."""
        raise NotImplementedError

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            self.write_weights(Path(output_dir or self.output), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.read_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Trains; a run that is pushed makes its card before it begins, lest a fact be missing at its end."""
        if self.args.push_to_hub:
            self.create_model_card()
        return super().train(*arguments, **options)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository that is pushed to; transformers calls it when a trainer is made.

        Raises:
            ValueError: a bad name, one that another type of repository has, or a public one for what is private.
            OSError: no token, a wrong one, one that may not write there, or no connection.
        """
        if not self.is_world_process_zero():
            return
        self.hub_model_id = make_repo(
            self.args.hub_model_id or self.output.resolve().name,
            private=self.args.hub_private_repo if private is None else private,
            token=token or self.args.hub_token,
            revision=self.args.hub_revision,
        )
        self.args.hub_model_id = self.hub_model_id  # for the card
        self.push_in_progress = None

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> CommitInfo | Future | None:
        """Uploads what a finished run leaves. To be called by all processes; the first one uploads.

        Args:
            commit_message: what it says.
            blocking: False uploads in the background and returns a future.
            token: in place of ``hub_token``.
            revision: branch, in place of ``hub_revision``.
            private: in place of ``hub_private_repo``.
            card: arguments of ``create_model_card``.

        Raises:
            ValueError: a fact is missing from the card, or as for :meth:`init_hf_repo`.
            OSError: as for :meth:`init_hf_repo`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        stage = self._stage(**card)
        if not self.is_world_process_zero():
            stage.cleanup()
            return None
        self._finish_current_push()
        options = {"commit_message": commit_message, "token": token or self.args.hub_token}
        options["revision"] = revision or self.args.hub_revision
        if blocking:
            return _upload(stage, self.hub_model_id, **options)
        return HfApi().run_as_future(_upload, stage, self.hub_model_id, **options)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Uploads what there is so far; transformers calls it when it has saved a checkpoint."""
        args = self.args
        if args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        checkpoint = None
        if args.hub_strategy != HubStrategy.EVERY_SAVE:
            is_last = args.hub_strategy == HubStrategy.CHECKPOINT
            checkpoint = _LAST_CHECKPOINT if is_last else Path(checkpoint_folder).name
        try:
            stage = self._stage(checkpoint_folder, checkpoint)
        except Exception as error:  # the checkpoint itself is safe, and the training is worth more
            _LOGGER.warning("Step %d is not pushed: %s", self.state.global_step, error)
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if not self.is_world_process_zero() or (busy and not args.hub_always_push):
            stage.cleanup()
            return
        options = {"commit_message": f"Training in progress, step {self.state.global_step}", "token": args.hub_token}
        if checkpoint is not None:
            # What the checkpoint before had and this one has not.
            options |= {"checkpoint": checkpoint, "delete_patterns": [f"{checkpoint}/*"]}
        job = HfApi().run_as_future(_try_to_upload, stage, self.hub_model_id, revision=args.hub_revision, **options)
        if busy:
            self.push_in_progress.jobs.append(job)
        else:
            from transformers.utils import PushInProgress  # late: check_relied_on() is to say so if it is gone

            self.push_in_progress = PushInProgress([job])

    def _stage(
        self, checkpoint_folder: str | None = None, checkpoint: str | None = None, **card: Any
    ) -> TemporaryDirectory:
        """A copy of what is to be pushed: the training goes on, and deletes old checkpoints, while it is uploaded."""
        stage = TemporaryDirectory(prefix="motion-grpo-push-")
        folder, output = Path(stage.name), self.output
        self.save_result(folder)
        if self.is_world_process_zero():
            self._write_log()
            self.create_model_card(**card)
            for name in ("README.md", CURVES_FILE, LOG_FILE):
                if (output / name).is_file():
                    shutil.copyfile(output / name, folder / name)
            if (output / RUN_FILE).is_file():
                recorded = without_places(json.loads((output / RUN_FILE).read_text()))
                write_text(folder / RUN_FILE, json.dumps(recorded, indent=1))
            if checkpoint is not None:
                shutil.copytree(checkpoint_folder, folder / checkpoint)
        return stage

    def _write_log(self) -> None:
        write_text(self.output / LOG_FILE, json.dumps(self.state.log_history, indent=1))


def _upload(stage: TemporaryDirectory, repo_id: str, **options: Any) -> CommitInfo:
    with stage as folder:
        return push_folder(folder, repo_id, **options)


def _try_to_upload(stage: TemporaryDirectory, repo_id: str, **options: Any) -> None:
    try:
        _upload(stage, repo_id, **options)
    except Exception as error:  # likewise
        _LOGGER.warning("%r could not be pushed; the training goes on: %s", options["commit_message"], error)


def clips_to_evaluate(eval_dataset: object, own: Sequence[Clip]) -> list[Clip]:
    """The clips that ``evaluate(eval_dataset)`` is about; the trainer's own when None.

    Raises:
        ValueError: there are none, or it is something else than clips.
    """
    clips = own if eval_dataset is None else eval_dataset
    if not isinstance(clips, Sequence) or not all(isinstance(clip, Clip) for clip in clips):
        raise ValueError(
            f"eval_dataset is a {type(clips).__name__}; whole clips are recovered: pass a list of Clip, as "
            "motion_grpo.data.load_clips reads them."
        )
    if not clips:
        raise ValueError("There are no clips to evaluate on; pass some to evaluate(eval_dataset=...) or the trainer.")
    return list(clips)


def checkpoint_gradients(model: ModelMixin, args: TrainingArguments) -> None:
    """Switches gradient checkpointing on in diffusers' way, if asked for; transformers would call its own models'."""
    if args.gradient_checkpointing:
        model.enable_gradient_checkpointing()
        args.gradient_checkpointing = args.activation_checkpointing = False


class DiffusersTrainer(HubTrainerMixin, Trainer):
    """A transformers Trainer of one diffusers model: checkpoints hold ``config.json`` and diffusers' weight file.

    transformers would write its own file name, which ``from_pretrained`` does not find, and no configuration.
    """

    def __init__(self, model: ModelMixin, args: TrainingArguments, **options: Any) -> None:
        self.diffusers_model = model
        checkpoint_gradients(model, args)
        super().__init__(model=model, args=args, **options)

    def write_weights(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the model."""
        self.diffusers_model.save_pretrained(folder)

    def read_weights(self, folder: Path) -> None:
        """Reads the model."""
        stored = type(self.diffusers_model).from_pretrained(folder)
        self.diffusers_model.load_state_dict(stored.state_dict())
