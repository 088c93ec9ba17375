"""A run becomes a checkpoint folder whose card can be made again; evaluations come later and must be of its weights."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.cards import record_run
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.training import DenoisingConfig, MotionGRPOConfig, PerceptualConfig
from tests.cards.setup import evaluate, results_of, tiny_critic
from tests.cards.test_models import critic_results
from tests.tiny import moving_motion, tiny_denoiser, write_shard
from tools import ship_checkpoint
from tools.ship_checkpoint import END, LARGEST_MB, START, ShipArguments, insert, rebuild, ship

ROOT = Path(__file__).parents[2]
SAID = {
    "command": "accelerate launch x.py",
    "summary": "A model.",
    "hours": 0.5,
    "machine": "one CPU",
    "license": "mit",
}
LOG = [{"step": 1, "loss": 2.0}, {"step": 4, "loss": 1.0}]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with recordings and documents of its own."""
    (tmp_path / "pack").mkdir()
    write_shard(tmp_path / "pack", "cmu", "train", [moving_motion(20)])
    (tmp_path / "docs").mkdir()
    for path in ("README.md", "docs/perceptual.md"):
        (tmp_path / path).write_text(f"Before.\n{START}\nold\n{END}\nAfter.\n")
    (tmp_path / "config.yaml").write_text("per_device_train_batch_size: 8\nseed: 3\nmax_steps: 4\n")
    monkeypatch.setattr(ship_checkpoint, "ROOT", tmp_path)
    return tmp_path


def write_run(place: Path, kind: str, log: list[dict], **model) -> Path:
    run = place / f"run_{kind}"
    if kind == "perceptual":
        tiny_critic().save_pretrained(run / "model")
        config = PerceptualConfig(str(run), use_cpu=True, per_device_train_batch_size=8, seed=3)
    else:
        EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), 6).save_pretrained(run / "pipeline")
        config = DenoisingConfig(str(run), use_cpu=True, per_device_train_batch_size=8, seed=3)
        if kind == "grpo":
            config = MotionGRPOConfig(
                str(run), use_cpu=True, per_device_train_batch_size=8, num_generations=4, gradient_accumulation_steps=2,
                rewards=["position"], seed=3,
            )  # fmt: skip
    record_run(config, data={"dataset_name": str(place / "pack")}, model=model)
    (run / "training_log.json").write_text(json.dumps(log))
    return run


def arguments(place: Path, run: Path, name: str, **changes) -> ShipArguments:
    given = {"training_config": place / "config.yaml", "dataset": str(place / "pack"), **SAID, **changes}
    return ShipArguments(run=run, output=place / name, **given)


def test_ship_evaluate_rebuild(place):
    run, output = write_run(place, "pipeline", LOG), place / "base"
    ship(arguments(place, run, "base"))
    text = (output / "README.md").read_text()
    assert "Not evaluated" in text
    assert "4 steps of 8 windows of 128 frames, seed 3, 0.5 hours on one CPU" in text
    assert "fp16" in text
    assert str(place) not in text + (output / "facts.json").read_text() + (output / "model_index.json").read_text()
    assert "old" in (place / "README.md").read_text()
    shipped = EgoMotionPipeline.from_pretrained(output).denoiser
    trained = EgoMotionPipeline.from_pretrained(run / "pipeline").denoiser
    for a, b in zip(shipped.parameters(), trained.parameters(), strict=True):
        assert torch.equal(a, b.half().float())

    results = results_of(output / "denoiser")
    metrics = results["splits"]["test"]["systems"]["model"]["metrics"]
    metrics |= dict.fromkeys(("pa_mpjpe", "mpjve", "mpjre"), metrics["mpjpe"])
    systems = dict.fromkeys(ship_checkpoint.SYSTEMS, results["splits"]["test"]["systems"]["model"])
    results["splits"] = {split: results["splits"]["test"] | {"systems": systems} for split in ("id_test", "test")}
    evaluate(output, results)
    rebuild(output)
    card = ModelCard.load(output / "README.md")
    assert {result.metric_value for result in card.data.eval_results} == {50.0, 2.0}
    readme = (place / "README.md").read_text()
    assert "| unseen takes (id_test) | **model** | 50 | 50 | 50 | 50 | 2 |" in readme
    assert "Checkpoint `base` on open_mocap_smplh (d), whole clips; `id_test`: 3 clips, 0.1 minutes; `test`: " in readme
    assert "2 samples a clip, 5 sampling steps, eta 1." in readme
    assert "old" not in readme
    assert readme.startswith("Before.\n")
    assert readme.endswith("\nAfter.\n")

    # Shipping again needs none of the facts, and gives the same card.
    before = (output / "README.md").read_text()
    ship(ShipArguments(run=run, output=output))
    assert (output / "README.md").read_text() == before
    # Other weights: their evaluation is still to come.
    EgoMotionPipeline(tiny_denoiser(d_latent=24), EgoMotionSDEScheduler(), 6).save_pretrained(run / "pipeline")
    with pytest.raises(ValueError, match="is the evaluation of another model"):
        ship(ShipArguments(run=run, output=output))


def test_a_run_tells_how_long_it_took(place):
    run, output = write_run(place, "pipeline", [*LOG, {"step": 4, "train_runtime": 5400.0}]), place / "x"
    ship(arguments(place, run, "x", hours=None))
    assert "seed 3, 1.5 hours on one CPU" in (output / "README.md").read_text()


def test_ship_a_post_trained_pipeline(place):
    log = [{"step": n, "reward": 0.1 * n, "rewards/position/mean": 0.1 * n} for n in (1, 2)]
    run = write_run(place, "grpo", log, model_name_or_path="paper_base")
    output = place / "grpo"
    ship(arguments(place, run, "grpo", kind="grpo"))
    text = (output / "README.md").read_text()
    assert "2 steps of 16 samples, 4 for each of 4 windows, of 128 frames" in text
    assert "Before and after" not in text
    evaluate(output, results_of(output / "denoiser", scale=0.9))
    (place / "base.json").write_text(json.dumps(results_of(output / "denoiser")))
    ship(ShipArguments(run=run, output=output, kind="grpo", base_evaluation=place / "base.json"))
    card = ModelCard.load(output / "README.md")
    assert card.data.base_model is None  # only its name is known, and no place on the Hub
    assert "| test | mpjpe | mm | 50 [49, 51] | 45 [44, 46] | -10.0% |" in card.text
    before = card.content
    rebuild(output)
    assert (output / "README.md").read_text() == before


def test_ship_a_perceptual_model(place):
    run, output = write_run(place, "perceptual", LOG, policies=["base", "/far/away/other"]), place / "perceptual"
    ship(arguments(place, run, "perceptual", kind="perceptual", precision="fp32"))
    text = (output / "README.md").read_text()
    assert "motions that base and other drew" in text
    assert "fp32" in text
    evaluate(output, critic_results(MotionPerceptualModel.from_pretrained(output)))
    (output / "evaluation" / "severity.png").write_bytes(b"")
    rebuild(output)
    assert ModelCard.load(output / "README.md").data.eval_results[0].metric_value == 97.5
    document = (place / "docs" / "perceptual.md").read_text()
    assert "| mpjpe | 50 |" in document
    assert "![Score by severity of each artefact](../perceptual/evaluation/severity.png)" in document
    assert document.endswith("\nAfter.\n")


def test_half_precision_is_what_the_evaluation_sees(place):
    run, output = write_run(place, "perceptual", LOG, policies=["base"]), place / "critic"
    ship(arguments(place, run, "critic", kind="perceptual"))
    evaluate(output, critic_results(MotionPerceptualModel.from_pretrained(output)))
    rebuild(output)
    evaluate(output, critic_results(MotionPerceptualModel.from_pretrained(run / "model")))
    with pytest.raises(ValueError, match="of other models"):
        rebuild(output)


def test_what_cannot_be_shipped(place, monkeypatch):
    run = write_run(place, "pipeline", LOG)
    with pytest.raises(ValueError, match="--kind is 'chair'"):
        ship(arguments(place, run, "x", kind="chair"))
    with pytest.raises(ValueError, match="--precision is 'int8'"):
        ship(arguments(place, run, "x", precision="int8"))
    with pytest.raises(ValueError, match="The pipeline card of x needs hours"):
        ship(arguments(place, run, "x", hours=None))
    monkeypatch.setattr(ship_checkpoint, "LARGEST_MB", 0.001)
    with pytest.raises(ValueError, match=r"The weights take 0\.\d MB; what ships with the package takes 0.001 MB"):
        ship(arguments(place, run, "y"))
    assert LARGEST_MB == 15


def test_marks_that_are_not_there(tmp_path):
    (tmp_path / "a.md").write_text(f"{START}\n")
    with pytest.raises(ValueError, match="has no lines"):
        insert(tmp_path / "a.md", "text")


@pytest.mark.parametrize("path", ["README.md", "docs/perceptual.md"])
def test_documents_have_their_marks(path):
    text = (ROOT / path).read_text()
    assert (text.count(START), text.count(END)) == (1, 1)
    assert text.index(START) < text.index(END)
