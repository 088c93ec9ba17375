"""Imports motion data into the one schema: ``motion-grpo data amass AMASS --output DATA --num-proc 8``.

Every command writes ``DATA/SPLIT/NAME-00000.parquet`` and a data-set card, and ends with a report of what was kept and
dropped. Killed, it goes on where it stopped when started again. Exit code 1: some file was broken, or nothing was kept.
"""

# What is heavy is imported in the functions, so that help and mistyped options answer at once.
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from motion_grpo.data import Importer, ImportReport

app = typer.Typer(help="Import motion data into one schema, to train on and to share.", no_args_is_help=True)

_DOUBTFUL_SHOWN = 10
_RIG_HELP = "auto (by the joints' names), 100style, bandai, cc, cmu, lafan1, mixamo, soma77, or a YAML joint map."

Folder = Annotated[Path, typer.Argument(help="Folder of the data set.")]
BodyModels = Annotated[Path | None, typer.Option(help="Folder of licensed body models; the default body without.")]
Hands = Annotated[bool, typer.Option(help="Keep finger rotations where fingers move.")]
Split = Annotated[str, typer.Option(help="Split that everything goes into.")]
MinSeconds = Annotated[float, typer.Option(min=0.1, help="Shorter pieces are left out.")]
License = Annotated[str, typer.Option(help="Terms of the recordings, for the rows and the card.")]
Stature = Annotated[float | None, typer.Option(help="Of the actor, meters; estimated from the skeleton by default.")]
Unit = Annotated[
    float | None, typer.Option(min=1e-6, help="Meters to a unit of the file's lengths; the format's by default.")
]
Name = Annotated[str, typer.Option(help="Source in the rows, and start of the shards' names.")]
Device = Annotated[str, typer.Option(help="Glasses, for their documented extrinsic: gen1 ...")]
UseVrs = Annotated[bool, typer.Option("--vrs", help="Take each calibration from the VRS file beside it (extra aria).")]


def _import(
    importer: "Importer",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the data set; a killed import goes on.")],
    num_proc: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Source files to a Parquet file.")] = 256,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken file.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="REPO_ID", help="Also upload to the Hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Upload for you alone.")] = False,
) -> None:
    import torch

    from motion_grpo.cards.sources import is_restricted
    from motion_grpo.data import run_import
    from motion_grpo.hub import check_repo

    if push_to_hub and not private and is_restricted(importer.name):
        raise ValueError(
            f"The license of {importer.name} does not allow sharing it publicly: upload it with --private."
        )
    if push_to_hub:
        # Before hours of work, and for the full name on the card.
        push_to_hub = check_repo(push_to_hub, repo_type="dataset", private=private)
    # Matrices are small: further threads wait for each other. Processes are what helps (--num-proc).
    torch.set_num_threads(1)
    report = run_import(importer, output, num_proc=num_proc, clips_per_shard=clips_per_shard, strict=strict)
    for dropped in report.broken:
        print(f"broken: {dropped.path}: {dropped.reason}", file=sys.stderr)
    for clip in report.doubtful[:_DOUBTFUL_SHOWN]:
        print(f"look at: {clip.id}: {clip.reason}", file=sys.stderr)
    if len(report.doubtful) > _DOUBTFUL_SHOWN:
        rest = f"{len(report.doubtful) - _DOUBTFUL_SHOWN} more to look at"
        print(f"{rest}: {output / importer.name}_report.json", file=sys.stderr)
    print(report)
    if report.clips:
        _describe(output, report, push_to_hub, private)
    raise typer.Exit(report.exit_code)


def _describe(output: Path, report: "ImportReport", repo_id: str | None, private: bool) -> None:
    """Writes the card, and uploads the folder if there is an id to upload to."""
    from motion_grpo.cards import write_dataset_card
    from motion_grpo.cards.sources import hub_license, licenses_in, source_facts, why_private
    from motion_grpo.hub import push_folder

    facts = source_facts(licenses_in(output))
    reasons = [reason for source in facts if (reason := why_private(source))]
    titles = sorted({source.title.split(",")[0] for source in facts})
    write_dataset_card(
        output,
        title=f"Motion of {', '.join(titles)}",
        license=hub_license(facts),
        summary=f"{', '.join(titles)} in the form that motion-grpo trains on and evaluates with.",
        sources=facts,
        repo_id=repo_id,
    )
    print(f"wrote {output}: load_dataset({str(output)!r}), or --dataset_name {output} in training")
    if repo_id is None:
        return
    if reasons and not private:
        raise ValueError(f"Not uploaded: {'; '.join(reasons)}. With --private it is for you alone.")
    # The shards as they are, in the place of those of an earlier import, and the card that names the splits; reports
    # hold paths of this machine.
    commit = push_folder(
        output,
        repo_id,
        repo_type="dataset",
        private=private,
        commit_message=f"{report.clips} clips of {report.importer}",
        allow_patterns=["README.md", "eval.yaml", "*/*.parquet"],
        delete_patterns=["*/*.parquet"],
    )
    print(f"uploaded to {commit.repo_url}")


def _command(make: Callable[..., "Importer"]) -> Callable[..., "Importer"]:
    """Registers a command whose options are those of an importer and the common ones of :func:`_import`."""
    own, common = (list(inspect.signature(f).parameters.values()) for f in (make, _import))
    shared = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in common[1:]]

    @functools.wraps(make)
    def command(**options: object) -> None:
        settings = {parameter.name: options.pop(parameter.name) for parameter in shared}
        _import(make(**options), **settings)

    own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = inspect.Signature(own + shared)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in own + shared}
    app.command(make.__name__.replace("_", "-"))(command)
    return make


@_command
def amass(
    folder: Folder,
    body_models: BodyModels = None,
    hands: Hands = True,
    keep: Annotated[float, typer.Option(min=0.1, max=1, help="Share of each clip to keep, from the middle.")] = 0.8,
) -> "Importer":
    """AMASS: npz of SMPL+H or SMPL-X as downloaded, in the paper's splits."""
    from motion_grpo.data.importers.amass import AmassImporter

    return AmassImporter(folder, body_models, hands, keep)


@_command
def rich(
    folder: Folder, body_models: BodyModels = None, hands: Hands = True, min_seconds: MinSeconds = 1.0
) -> "Importer":
    """RICH: SMPL-X fits in its official splits (train_body, val_body, test_body, multicam2world)."""
    from motion_grpo.data.importers.rich import RichImporter

    return RichImporter(folder, body_models, hands, min_seconds)


@_command
def adt(
    folder: Folder,
    device: Device = "gen1",
    use_vrs: UseVrs = False,
    min_seconds: MinSeconds = 1.0,
    split: Split = "test",
) -> "Importer":
    """Aria Digital Twin: head trajectories with measured joints, no SMPL body."""
    from motion_grpo.data.importers.aria import AdtImporter

    return AdtImporter(folder, device, use_vrs, min_seconds, split)


@_command
def aria(
    folder: Folder,
    device: Device = "gen1",
    use_vrs: UseVrs = False,
    min_seconds: MinSeconds = 1.0,
    split: Split = "test",
    license: License = "",
    world: Annotated[str, typer.Option(help="Only this graph_uid, where tracking was lost; all by default.")] = "",
) -> "Importer":
    """Project Aria MPS folders: head trajectories with tracked hands, no SMPL body."""
    from motion_grpo.data.importers.aria import AriaImporter

    return AriaImporter(folder, device, use_vrs, min_seconds, split, license, world)


@_command
def bvh(
    folder: Folder,
    rig: Annotated[str, typer.Option(help=_RIG_HELP)] = "auto",
    stature: Stature = None,
    metres_per_unit: Unit = None,
    up: Annotated[Literal["y", "z"], typer.Option(help="Axis that points up.")] = "y",
    fps: Annotated[float | None, typer.Option(min=1, help="Frames a second; the file's by default.")] = None,
    t_pose_frame: Annotated[int | None, typer.Option(help="Frame with a T-pose; as the rig has it by default.")] = None,
    min_seconds: MinSeconds = 2.0,
    split: Split = "train",
    license: License = "",
    name: Name = "bvh",
) -> "Importer":
    """Any BVH files, retargeted by their joints' names."""
    from motion_grpo.data.importers.bvh import BvhImporter

    return BvhImporter(folder, rig, stature, metres_per_unit, up, fps, t_pose_frame, min_seconds, split, license, name)


@_command
def asf(
    folder: Folder,
    fps: Annotated[float, typer.Option(min=1, help="AMC files have no rate; CMU's is 120.")] = 120.0,
    stature: Stature = None,
    metres_per_unit: Unit = None,
    min_seconds: MinSeconds = 2.0,
    split: Split = "train",
    license: Annotated[str | None, typer.Option(help="Terms of the recordings; CMU's by default.")] = None,
    name: Name = "asf",
) -> "Importer":
    """Acclaim ASF/AMC: CMU's motion capture, a subject's .asf beside its .amc files."""
    from motion_grpo.data.importers.asf import CMU_LICENSE, AsfImporter

    license = CMU_LICENSE if license is None else license
    return AsfImporter(folder, fps, stature, metres_per_unit, min_seconds, split, license, name)


@_command
def open_mocap(
    bandai: Annotated[Path | None, typer.Option(help="Clone of Bandai-Namco-Research-Motiondataset.")] = None,
    cmu: Annotated[
        Path | None, typer.Option(help="Folder of CMU files: ASF/AMC (both parts), BVH on the CC_Base rig.")
    ] = None,
) -> "Importer":
    """The open packs that our checkpoints are trained on, rebuilt from their public sources."""
    from motion_grpo.data.importers.open_mocap import OpenMocapImporter

    return OpenMocapImporter(bandai, cmu)


@_command
def egoallo_hdf5(
    file: Annotated[Path, typer.Argument(help="egoalgo_no_skating_dataset.hdf5")],
    body_models: BodyModels = None,
    hands: Hands = True,
    mirrored: Annotated[bool, typer.Option(help="Take the mirrored copies too.")] = False,
) -> "Importer":
    """The file that EgoAllo's own preprocessing of AMASS ends in (needs the extra hdf5)."""
    from motion_grpo.data.importers.egoallo_hdf5 import EgoAlloHdf5Importer

    return EgoAlloHdf5Importer(file, body_models, hands, mirrored)


@_command
def pack(
    folders: Annotated[list[Path], typer.Argument(help="Packs, which are joined.")],
    splits: Annotated[str, typer.Option(help="With commas between.")] = "train,val,test,id_test",
    sources: Annotated[str, typer.Option(help="Only these, with commas between: cmu,cmu2 are free for all uses.")] = "",
    exclude: Annotated[str, typer.Option(help="Leave out clips whose id matches, with commas between.")] = "",
) -> "Importer":
    """Packs of open_mocap_smplh (SOURCE_SPLIT.parquet) as one data set."""
    from motion_grpo.data import MocapPackImporter

    def several(text):
        return tuple(text.split(",")) if text else ()

    return MocapPackImporter(tuple(folders), several(splits), several(sources) or None, several(exclude))


@app.command()
def hamer(
    detections: Annotated[Path, typer.Argument(help="EgoAllo's hamer_outputs.pkl.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Hands to write (.npz), for recover --hamer.")],
    from_pickle: Annotated[
        bool, typer.Option("--from-pickle", help="Read the pickle: its numbers only, no code of it runs.")
    ] = False,
    focal_length: Annotated[
        float, typer.Option(min=1, help="Of the image in which the hands were found, pixels; EgoAllo's by default.")
    ] = 450.0,
) -> None:
    """Hands that HaMeR found, as a file without a pickle."""
    from motion_grpo.io.hamer import convert_hamer

    print(f"wrote {convert_hamer(detections, output, from_pickle=from_pickle, focal_length=focal_length)}")
