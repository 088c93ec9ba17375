"""A training run pushes what loads in one line, and goes on from what it has pushed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from motion_grpo import EgoMotionPipeline, MotionPerceptualModel
from motion_grpo.hub import PICKLES
from motion_grpo.rewards import RewardInputs, rotation_error
from motion_grpo.training.hub_runs import pushed_checkpoint
from tests.hub.processes.digests import weights
from tests.hub.training_runs import CRITIC, DENOISER, ROOT, SETTINGS, train, write_pack
from tests.tiny import head_poses
from tests.trajectory.helpers import aria_csv, walk

PUSH = {"push_to_hub": True, "hub_model_id": "me/walk"}
TOP = {".gitattributes", "README.md", "run.json", "training_curves.png", "training_log.json"}
NETWORK = {"config.json", "diffusion_pytorch_model.safetensors"}
PIPELINE = {
    "model_index.json", "pipeline.py", *(f"denoiser/{name}" for name in NETWORK), "scheduler/scheduler_config.json",
    "denoiser/motion_grpo.models.denoiser.py", "scheduler/motion_grpo.schedulers.ego_motion_sde.py",
}  # fmt: skip
FINISHED = "End of training"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_pack(tmp_path / "pack")
    return tmp_path


def pushed(server, repo: str = "me/walk", revision: str = "main") -> dict[str, bytes]:
    """What lies on the Hub, without the folders of checkpoints; nothing of it is a pickle."""
    files = server.store.repos["model", repo].commit(revision).files
    top = {path: file for path, file in files.items() if "checkpoint" not in path.split("/")[0]}
    assert not any(path.endswith(PICKLES) for path in top)
    return {path: server.store.object(file.sha256).read_bytes() for path, file in top.items()}


def checkpoint_of(server, name: str) -> set[str]:
    files = server.store.repos["model", "me/walk"].commit("main").files
    return {path.removeprefix(f"{name}/") for path in files if path.startswith(f"{name}/")}


def titles(server) -> list[str]:
    return [commit.title for commit in reversed(server.store.repos["model", "me/walk"].log("main"))]


class TestWhatLandsThere:
    def test_pretraining_with_its_last_checkpoint(self, online, api, folder, monkeypatch):
        run = train(
            monkeypatch, "pretrain", folder, **PUSH, hub_strategy="checkpoint", hub_token="hf_me",
            hub_private_repo=True, save_total_limit=1, hub_always_push=True,
        )  # fmt: skip
        assert titles(online) == [
            "initial commit", "Training in progress, step 2", "Training in progress, step 4", FINISHED,
        ]  # fmt: skip
        files = pushed(online)
        assert set(files) == TOP | PIPELINE
        assert checkpoint_of(online, "last-checkpoint") == {
            *NETWORK, *(f"ema/{name}" for name in NETWORK), "optimizer.pt", "scheduler.pt", "rng_state.pth",
            "trainer_state.json",
        }  # fmt: skip
        assert online.store.repos["model", "me/walk"].private
        for path, content in files.items():
            assert b"hf_me" not in content, path
            assert str(folder).encode() not in content, path
        # In the middle of the run it was as loadable as at its end.
        step_2 = online.store.repos["model", "me/walk"].history[1].sha
        halfway = EgoMotionPipeline.from_pretrained("me/walk", revision=step_2)
        online.requests.clear()
        final = EgoMotionPipeline.from_pretrained("me/walk")
        assert not any("last-checkpoint" in request for request in online.requests)
        assert weights(final.denoiser) == weights(EgoMotionPipeline.from_pretrained(run / "pipeline").denoiser)
        assert weights(final.denoiser) != weights(halfway.denoiser)
        assert (final.config.num_inference_steps, final.scheduler.config.eta, final.config.window) == (5, 0.25, 16)
        assert len(final(head_poses(20)).motion) == 20
        card = ModelCard(files["README.md"].decode())
        assert 'EgoMotionPipeline.from_pretrained("me/walk")' in card.text
        assert "5 sampling steps, eta 0.25" in card.text
        assert "4 steps of 2 windows" in card.text
        assert [entry["step"] for entry in json.loads(files["training_log.json"]) if "loss" in entry] == [1, 2, 3, 4]
        assert json.loads(files["run.json"])["data"]["dataset_name"] == ["pack"]

    @pytest.mark.slow
    def test_a_perceptual_model_at_every_save(self, online, folder, monkeypatch):
        run = train(monkeypatch, "perceptual", folder, **PUSH, hub_always_push=True, hub_revision="try")
        assert set(pushed(online, revision="main")) == {".gitattributes"}
        files = pushed(online, revision="try")
        assert set(files) == TOP | NETWORK
        assert checkpoint_of(online, "last-checkpoint") == set()
        model = MotionPerceptualModel.from_pretrained("me/walk", revision="try")
        assert weights(model) == weights(MotionPerceptualModel.from_pretrained(run / "model"))
        assert 'MotionPerceptualModel.from_pretrained("me/walk")' in files["README.md"].decode()
        assert "motions that base drew" in files["README.md"].decode()

    @pytest.mark.slow
    def test_an_adapter_beside_the_merged_pipeline(self, online, folder, monkeypatch):
        train(
            monkeypatch, "grpo", folder, **PUSH, hub_strategy="all_checkpoints", lora_r=2, ema_decay=0.5, max_steps=2,
            save_steps=1.0, hub_always_push=True, learning_rate=1e-1,
        )  # fmt: skip
        files = pushed(online)
        assert set(files) == TOP | PIPELINE | {"pytorch_lora_weights.safetensors"}
        for step in (1, 2):
            assert {"optimizer.pt", "pytorch_lora_weights.safetensors"} <= checkpoint_of(online, f"checkpoint-{step}")
        assert pushed_checkpoint("me/walk")[1] == "checkpoint-2"
        merged, adapted = (EgoMotionPipeline.from_pretrained(name) for name in ("me/walk", folder / "base"))
        latents = torch.randn(1, 20, merged.denoiser.state_layout.dim)

        def recovered(pipeline: EgoMotionPipeline) -> torch.Tensor:
            return pipeline(head_poses(20), latents=latents, eta=0.0, output_type="latent").latents

        before = recovered(adapted)
        adapted.load_lora_weights("me/walk")
        torch.testing.assert_close(recovered(adapted), recovered(merged), rtol=0, atol=1e-4)
        assert (recovered(adapted) - before).abs().max() > 1e-2
        assert 'pipe.load_lora_weights("me/walk")' in files["README.md"].decode()

    def test_nothing_before_the_end(self, online, folder, monkeypatch):
        train(monkeypatch, "pretrain", folder, **PUSH | {"hub_model_id": "walk"}, hub_strategy="end", max_steps=2)
        assert titles(online) == ["initial commit", FINISHED]
        assert set(pushed(online)) == TOP | PIPELINE
        assert 'from_pretrained("me/walk")' in pushed(online)["README.md"].decode()


def dies(inputs: RewardInputs) -> torch.Tensor:
    """A reward at which the third rollout ends the process, as far as the run can tell."""
    dies.calls += 1
    if dies.calls == 3:
        raise KeyboardInterrupt
    return torch.exp(-rotation_error(inputs).mean(1))


class TestResuming:
    @pytest.mark.slow
    def test_from_the_hub_where_nothing_is_left_here(self, online, folder, monkeypatch):
        steps = {"save_steps": 1.0, "max_steps": 4, "ema_decay": 0.9, "hub_always_push": True}
        rewards = {"rewards": [f"{__name__}:dies"]}
        dies.calls = 10
        whole = train(monkeypatch, "grpo", folder, output="whole", **steps, **rewards)
        dies.calls = 0
        with pytest.raises(KeyboardInterrupt):
            train(monkeypatch, "grpo", folder, **PUSH, hub_strategy="checkpoint", **steps, **rewards)
        shutil.rmtree(folder / "run")
        dies.calls = 10
        run = train(monkeypatch, "grpo", folder, **PUSH, hub_strategy="checkpoint", resume=True, **steps, **rewards)
        assert dies.calls == 12  # rollouts 3 and 4
        pairs = [EgoMotionPipeline.from_pretrained(path).denoiser for path in ("me/walk", whole / "pipeline")]
        for ours, theirs in zip(*(denoiser.parameters() for denoiser in pairs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        log = json.loads((run / "training_log.json").read_text())
        assert [entry["step"] for entry in log if "reward" in entry] == [1, 2, 3, 4]
        assert titles(online).count("Training in progress, step 3") == 1

    def test_a_run_that_has_not_begun_begins(self, online, folder, monkeypatch):
        train(monkeypatch, "pretrain", folder, **PUSH, hub_revision="try", resume=True, max_steps=2)
        assert pushed_checkpoint("me/walk", "try") is None
        assert set(pushed(online, revision="try")) == TOP | PIPELINE

    @pytest.mark.slow
    def test_what_lies_here_comes_first(self, online, folder, monkeypatch):
        train(monkeypatch, "pretrain", folder, max_steps=2)
        online.requests.clear()
        train(monkeypatch, "pretrain", folder, **PUSH, hub_strategy="end", resume=True)
        assert not any(request.startswith("GET") and "resolve" in request for request in online.requests)
        assert json.loads(pushed(online)["training_log.json"])[0]["step"] == 1


class TestOnTheWay:
    @pytest.mark.slow
    def test_a_push_that_fails_does_not_end_the_training(self, online, folder, monkeypatch, caplog):
        online.fail("POST", "/commit/", 403, times=2)
        train(monkeypatch, "pretrain", folder, **PUSH, hub_always_push=True)
        assert "'Training in progress, step 2' could not be pushed; the training goes on" in caplog.text
        assert titles(online) == ["initial commit", FINISHED]

    @pytest.mark.slow
    def test_a_full_disk_where_the_push_is_prepared(self, online, folder, monkeypatch, caplog):
        """The checkpoint is there all the same."""
        copytree = shutil.copytree

        def full(source, target, *args, **options):
            if Path(target).name == "last-checkpoint":
                raise OSError("No space left on device")
            return copytree(source, target, *args, **options)

        monkeypatch.setattr(shutil, "copytree", full)
        settings = {"hub_strategy": "checkpoint", "max_steps": 1, "save_steps": 1.0}
        run = train(monkeypatch, "grpo", folder, **PUSH, **settings)
        assert "Step 1 is not pushed: No space left on device" in caplog.text
        assert (run / "checkpoint-1" / "trainer_state.json").is_file()
        assert titles(online) == ["initial commit", FINISHED]


class TestBeforeItBegins:
    """Nobody trains for a day to learn that the result cannot be pushed."""

    @pytest.fixture(params=["pretrain", "perceptual", "grpo"])
    def script(self, request) -> str:
        return request.param

    def refused(self, monkeypatch, script: str, folder: Path, error: type, message: str, **settings) -> None:
        with pytest.raises(error, match=message):
            train(monkeypatch, script, folder, **PUSH | settings)
        assert not list(folder.glob("run/checkpoint-*"))

    def test_no_token(self, online, folder, monkeypatch, script):
        monkeypatch.delenv("HF_TOKEN")
        self.refused(monkeypatch, script, folder, OSError, "there is no token; set HF_TOKEN or run `hf auth login`")
        assert online.requests == []

    def test_names_and_owners(self, online, folder, monkeypatch):
        self.refused(monkeypatch, "pretrain", folder, ValueError, "is no name for a repository", hub_model_id="me/..")
        self.refused(monkeypatch, "pretrain", folder, OSError, "you/walk is not yours", hub_model_id="you/walk")
        assert online.store.repos == {}

    def test_a_repository_of_another_type(self, api, folder, monkeypatch):
        api.create_repo("me/walk", repo_type="dataset")
        self.refused(monkeypatch, "pretrain", folder, ValueError, "me/walk exists and is a data set, not a model")

    def test_a_public_one_for_what_is_private(self, api, folder, monkeypatch):
        api.create_repo("me/walk")
        self.refused(monkeypatch, "pretrain", folder, ValueError, "exists and is public", hub_private_repo=True)

    def test_a_card_that_lacks_a_fact(self, online, folder, monkeypatch, script):
        monkeypatch.setattr("motion_grpo.cards.models.RUN_FILE", "nobody_wrote_this.json")
        missing = "data" if script == "pretrain" else "data|policies"
        monkeypatch.setattr("motion_grpo.cli.train.runs.record_run", lambda *args, **told: None)
        self.refused(monkeypatch, script, folder, ValueError, rf"card of walk needs ({missing})")


def page_blocks() -> tuple[list[str], str]:
    """The commands and the Python lines of "Load, train, push"."""
    section = (ROOT / "docs" / "from_amass.md").read_text().split("\n## Load, train, push\n")[1].split("\n## ")[0]
    assert section.strip().count("\n") < 20
    [(bash, commands), (python, lines)] = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    assert (bash, python) == ("bash", "python")
    return commands.splitlines(), lines


@pytest.mark.slow
def test_the_lines_of_the_page(server, surroundings, tmp_path):
    """Each as it stands, in a process of its own, in a folder with tiny data and configs of the same names."""
    place = tmp_path / "checkout"
    (place / "configs").mkdir(parents=True)
    (place / "trainers").symlink_to(ROOT / "trainers")
    write_pack(place / "DATA")
    (place / "closed_loop_trajectory.csv").write_text("\n".join(aria_csv(*walk(60))))
    networks = {"pretrain": {"model_config": DENOISER}, "perceptual": {"model_config": CRITIC}, "grpo": {}}
    for script, network in networks.items():
        preset = SETTINGS[script] | network | {"max_steps": 2, "hub_always_push": True}
        (place / "configs" / f"{script}_small.yaml").write_text(yaml.safe_dump(preset))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = surroundings(PATH=path, PYTHONWARNINGS="ignore", CUDA_VISIBLE_DEVICES="")
    commands, lines = page_blocks()
    for command in [*commands, shlex.join([sys.executable, "-c", lines])]:
        done = subprocess.run(command, shell=True, env=environment, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"

    for name in ("me/ego-motion", "me/ego-motion-grpo"):
        assert set(pushed(server, name)) == TOP | PIPELINE
    assert set(pushed(server, "me/critic")) == TOP | NETWORK
    assert "last-checkpoint/optimizer.pt" in server.store.repos["model", "me/ego-motion-grpo"].commit("main").files
    assert "Post-trained from **me/ego-motion**" in pushed(server, "me/ego-motion-grpo")["README.md"].decode()
    assert "motions that me/ego-motion drew" in pushed(server, "me/critic")["README.md"].decode()
    assert server.store.repos["model", "me/ego-motion-for-friends"].private
    path = "denoiser/diffusion_pytorch_model.safetensors"
    theirs, ours = (pushed(server, f"me/ego-motion-{name}") for name in ("for-friends", "grpo"))
    assert theirs[path] == ours[path]
