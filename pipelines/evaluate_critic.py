"""Compares perceptual models as Table 4 does: ``motion-grpo evaluate-critic ours=PATH --dataset DATA -o results``.

What the output folder gets: :mod:`motion_grpo.evaluation.critic_runs`. All models see the same pairs.
"""

from pathlib import Path
from typing import Annotated

import typer
from motion_grpo.cli.evaluation_options import Dataset, Limit, Split, listed
from rich.console import Console
from rich.markdown import Markdown

from motion_grpo import EgoMotionPipeline
from motion_grpo.evaluation import read_clips
from motion_grpo.evaluation.critic_runs import CriticComparison
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.provenance import dataset_facts


def evaluate_critic(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Models to compare, each NAME=PATH, or the name of a shipped one.")
    ],
    dataset: Dataset,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    policy: Annotated[
        list[str], typer.Option(help="Pipeline that makes motion up: a folder, Hub id or shipped name. Repeatable.")
    ] = ["base"],  # noqa: B006  (typer copies it)
    split: Split = "id_test,test",
    seed: Annotated[int, typer.Option(help="Of the pairs and the artefacts.")] = 0,
    window: Annotated[int, typer.Option(min=2, help="Frames of a window.")] = 128,
    min_frames: Annotated[int, typer.Option(min=2, help="Ends of clips that are shorter are left out.")] = 30,
    artefact_windows: Annotated[int, typer.Option(min=2, help="Windows a split that artefacts are put on.")] = 256,
    limit: Limit = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Compare perceptual models: accuracy on pairs, artefacts, cost."""
    models = {
        name: MotionPerceptualModel.from_pretrained(path).to(torch_device) for name, path in _named(checkpoints).items()
    }
    policies = {}
    for path in policy:
        if (name := Path(path).name) in policies:
            raise ValueError(f"--policy names {name} twice; give each policy once, in folders of different names.")
        policies[name] = EgoMotionPipeline.from_pretrained(path).to(torch_device)
    clips = {name: read_clips(dataset, name, limit=limit) for name in listed(split, "--split")}
    comparison = CriticComparison(models, policies, clips, seed, window, min_frames, artefact_windows)
    text = comparison.run(dataset_facts(dataset) | {"limit": limit}, output, Console(stderr=True).print)
    Console().print(Markdown(text))
    Console().print(f"wrote {output / 'results.json'}, results.md, severity.png", markup=False)


def _named(checkpoints: list[str]) -> dict[str, str]:
    """Paths by name; a bare path goes by its last part."""
    named: dict[str, str] = {}
    for given in checkpoints:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = Path(given).name, given
        if not name or not path or name in named:
            raise ValueError(f"{given!r} does not name a model as NAME=PATH, or its name was given before.")
        named[name] = path
    return named


if __name__ == "__main__":
    typer.run(evaluate_critic)
