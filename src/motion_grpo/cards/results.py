"""What evaluations say, for cards: whose weights they speak of, entries for the Hub, before and after a training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from torch import nn

from motion_grpo.cards.templates import is_hub_id
from motion_grpo.files import write_text
from motion_grpo.metrics import METRIC_UNITS
from motion_grpo.provenance import state_dict_digest, weights_digest
from motion_grpo.runs import read_sessions

MAIN_METRICS = ("mpjpe", "pa_mpjpe", "mpjve", "mpjre", "jitter", "ground_penetration", "foot_skating")
"""What tables that compare, and the model-index, are limited to."""
ENTRIES = Path(".eval_results") / "results.yaml"
_TASKS = {
    "pipeline": "Full-body motion from a head trajectory",
    "perceptual": "Telling recorded from made-up motion, given the head trajectory",
}
_COMPARABLE = ("dataset_sha256", "dataset_revision", "mode", "seeds", "condition", "joints")
_STATED = {
    "pipeline": (
        "mode",
        "num_inference_steps",
        "eta",
        "guidance",
        "fps",
        "window_frames",
        "seeds",
        "alignment",
        "betas",
    ),
    "perceptual": ("seed", "window", "min_frames", "artefact_windows", "fps"),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One number of an evaluation."""

    split: str
    metric: str
    value: float
    lo: float
    """Bounds of the 95% interval."""
    hi: float
    unit: str
    over: str
    """What the mean is over."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation says of one model."""

    task: str
    dataset: str
    settings: dict[str, Any]
    """Those that the numbers mean nothing without."""
    values: list[Measured]
    results: dict[str, Any]
    """The whole of ``results.json``."""
    date: str | None = None
    """When it was made (ISO 8601), where its folder tells."""

    @property
    def main(self) -> list[Measured]:
        """The values that tables and metadata are limited to."""
        return [value for value in self.values if value.metric in MAIN_METRICS or value.metric not in METRIC_UNITS]


def read_pipeline_evaluation(path: Path, weights: Path | None) -> Evaluation:
    """The ``results.json`` of ``motion-grpo evaluate``.

    Args:
        path: the file.
        weights: folder of the denoiser's weights that it has to be of; None takes those of any.

    Raises:
        FileNotFoundError: no such file, or no weights.
        ValueError: no results, or those of other weights.
    """
    results = _read(path)
    try:
        said = results["settings"]["weights_sha256"]
        values = _pipeline_values(results)
    except KeyError as error:
        raise ValueError(f"{path} is not what `motion-grpo evaluate` writes: it has no {error.args[0]!r}.") from error
    if weights is not None and (digest := weights_digest(weights)) != said:
        raise ValueError(
            f"{path} is the evaluation of another model: of weights with the digest {said[:12]}..., while those in "
            f"{weights} have {digest[:12]}...; evaluate this one."
        )
    return _evaluation("pipeline", results, values, _date(path.parent))


def read_critic_evaluation(path: Path, model: nn.Module) -> Evaluation:
    """What the ``results.json`` of ``motion-grpo evaluate-critic`` says of one of the models that it compares.

    Args:
        path: the file.
        model: the one, as ``from_pretrained`` loads it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no results, or those of other models.
    """
    results = _read(path)
    digest = state_dict_digest(model)
    try:
        own = [method for method in results["methods"].values() if method["state_dict_sha256"] == digest]
        values = [value for method in own[:1] for value in _critic_values(method)]
    except KeyError as error:
        raise ValueError(
            f"{path} is not what `motion-grpo evaluate-critic` writes: it has no {error.args[0]!r}."
        ) from error
    if not own:
        raise ValueError(
            f"{path} is the evaluation of other models ({', '.join(results['methods'])}); none has the digest of these "
            f"weights, {digest[:12]}...: evaluate this one."
        )
    return _evaluation("perceptual", results, values)


def model_index(evaluation: Evaluation) -> list[EvalResult]:
    """For a card's ``model-index``: the main values."""
    return [
        EvalResult(
            task_type="other",
            task_name=evaluation.task,
            dataset_type=evaluation.dataset,
            dataset_name=evaluation.dataset,
            dataset_split=value.split,
            dataset_args=dict(evaluation.settings),
            metric_type=value.metric,
            metric_name=f"{value.metric} ({value.unit})",
            metric_value=_rounded(value.value),
            metric_args={
                "unit": value.unit,
                "interval_95": [_rounded(value.lo), _rounded(value.hi)],
                "over": value.over,
            },
        )
        for value in evaluation.main
    ]


def task_id(split: str, metric: str) -> str:
    """The name of a task in a data set's ``eval.yaml``, and in the results of it."""
    return f"{split}/{metric}"


def write_entries(evaluation: Evaluation, folder: Path, repo_id: str | None = None) -> Path | None:
    """Writes ``.eval_results/results.yaml`` beside a card: the values that are tasks of a data set on the Hub.

    A data set's ``eval.yaml`` lists its tasks (:func:`~motion_grpo.cards.write_dataset_card`). Of other recordings, and
    of what is no task there, the Hub has no leaderboard, and none are written.

    Args:
        evaluation: what to say.
        folder: of the card.
        repo_id: where the folder, with its ``evaluation/``, is on the Hub: the entries' source.

    Returns:
        The file's path; None where there is none.
    """
    path = folder / ENTRIES
    values = [value for value in evaluation.values if value.metric in METRIC_UNITS]
    if not values or not is_hub_id(evaluation.dataset):
        path.unlink(missing_ok=True)
        return None
    source = f"https://huggingface.co/{repo_id}/blob/main/evaluation/results.json" if is_hub_id(repo_id) else None
    stated = "; ".join(f"{name} {value}" for name, value in evaluation.settings.items())
    entries = [
        EvalResultEntry(
            dataset_id=evaluation.dataset,
            task_id=task_id(value.split, value.metric),
            value=_rounded(value.value),
            dataset_revision=evaluation.results["settings"].get("dataset_revision"),
            date=evaluation.date,
            source_url=source,
            source_name=source and "motion-grpo evaluate",
            notes=f"{value.unit}; {value.over}; 95% interval {value.lo:.4g} to {value.hi:.4g}; {stated}",
        )
        for value in values
    ]
    path.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, text)
    return path


def before_and_after(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Two evaluations side by side: ``rows``, and the settings in which they ``differ``.

    Raises:
        ValueError: they are of different recordings, samples or conditions.
    """
    for name in _COMPARABLE:
        there, here = (of.results["settings"].get(name) for of in (before, after))
        if there != here:
            raise ValueError(
                f"The evaluations before and after the training differ in {name} ({there}, {here}) and cannot be "
                "compared; evaluate both in the same way."
            )
    if before.results["limit"] != after.results["limit"]:
        limits = before.results["limit"], after.results["limit"]
        raise ValueError(f"The evaluations before and after the training are of other clips (--limit {limits}).")
    was = {(value.split, value.metric): value for value in before.main}
    rows = [
        {
            "split": value.split,
            "metric": value.metric,
            "unit": value.unit,
            "before": _with_interval(old),
            "after": _with_interval(value),
            "change": f"{100 * (value.value / old.value - 1):+.1f}%" if old.value else "",
        }
        for value in after.main
        if (old := was.get((value.split, value.metric))) is not None
    ]
    differ = [
        f"{name} {before.settings.get(name)}, then {value}"
        for name, value in after.settings.items()
        if before.settings.get(name) != value
    ]
    return {"rows": rows, "differ": differ}


def _read(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}).") from error
    if not isinstance(results, dict) or "settings" not in results:
        raise ValueError(f"{path} is no evaluation: it has no settings.")
    return results


def _date(folder: Path) -> str | None:
    sessions = read_sessions(folder)
    return sessions[-1].get("started") if sessions else None


def _evaluation(kind: str, results: dict[str, Any], values: list[Measured], date: str | None = None) -> Evaluation:
    settings = {name: results["settings"][name] for name in _STATED[kind] if name in results["settings"]}
    return Evaluation(_TASKS[kind], results["settings"]["dataset"], settings, values, results, date)


def _pipeline_values(results: Mapping[str, Any]) -> list[Measured]:
    values = []
    for split, summary in results["splits"].items():
        system = summary["systems"]["model"]
        over = f"mean over {summary['clips']} clips, {system['samples_per_clip']} samples each"
        if "windows" in summary:
            over = f"mean over {summary['windows']} windows of {over.removeprefix('mean over ')}"
        for metric, of in system["metrics"].items():
            values.append(Measured(split, metric, of["mean"], of["lo"], of["hi"], of["unit"], over))
    return values


def _critic_values(method: Mapping[str, Any]) -> list[Measured]:
    values = []
    for policy, parts in method["accuracy"].items():
        for split, of in parts.items():
            over = f"{of['total']} pairs of recorded and made-up motion (by {policy}), {of['wrong']} judged wrongly"
            values.append(Measured(split, f"accuracy_{policy}", of["percent"], of["lo"], of["hi"], "%", over))
    for split, faults in method.get("noticed", {}).items():  # evaluations of 0.1 have none
        for fault, of in faults.items():
            over = f"{of['total']} recordings and the same {fault.replace('_', ' by ')}, {of['wrong']} judged wrongly"
            values.append(Measured(split, f"noticed_{fault}", of["percent"], of["lo"], of["hi"], "%", over))
    for split, artefacts in method["severity"].items():
        for artefact, of in artefacts.items():
            over = f"mean over {of['windows']} windows of the correlation of score and severity ({of['unit']})"
            unit = "Spearman's rho"
            values.append(Measured(split, f"spearman_{artefact}", of["spearman"], of["lo"], of["hi"], unit, over))
    return values


def _with_interval(value: Measured) -> str:
    return f"{value.value:.4g} [{value.lo:.4g}, {value.hi:.4g}]"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
