"""What must not be pushed or loaded, and what goes wrong on the way."""

import json
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import CommitOperationAdd

from motion_grpo import EgoMotionDenoiser, EgoMotionPipeline, EgoMotionSDEScheduler, hub
from motion_grpo.hub import check_folder, check_repo, client, push_folder
from tests.hub.processes.digests import weights
from tests.tiny import tiny_denoiser

WEIGHTS = "denoiser/diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipeline() -> EgoMotionPipeline:
    return EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), num_inference_steps=2, window=16, overlap=4)


@pytest.fixture
def saved(pipeline, tmp_path) -> Path:
    pipeline.save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


def writes(server) -> list[str]:
    return [request for request in server.requests if request.startswith(("POST", "PUT", "DELETE"))]


class TestWhere:
    def test_no_token(self, online, pipeline, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(
            OSError, match="Cannot push to me/walk: there is no token; set HF_TOKEN or run `hf auth login`"
        ):
            pipeline.push_to_hub("me/walk")
        assert online.requests == []

    def test_wrong_token(self, online, pipeline, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        with pytest.raises(OSError, match="Cannot push to me/walk: the token is not valid"):
            pipeline.push_to_hub("me/walk")
        with pytest.raises(OSError, match="me/walk cannot be had from the Hub: the token is not valid"):
            EgoMotionDenoiser.from_pretrained("me/walk")
        assert writes(online) == []

    def test_offline(self, online, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(OSError, match="Cannot push to me/walk: HF_HUB_OFFLINE is set"):
            check_repo("me/walk")

    @pytest.mark.parametrize("name", ["../walk", "me/..", "me/a..b", "me/walk/on", "me/sp ace", ""])
    def test_names_that_are_none(self, online, saved, name):
        with pytest.raises(ValueError, match="is no name for a repository"):
            push_folder(saved, name)
        assert writes(online) == []

    def test_a_name_without_namespace_is_yours(self, online):
        assert check_repo("walk") == "me/walk"

    def test_another_owner(self, online, pipeline):
        with pytest.raises(OSError, match="you/walk is not yours to push to: the token belongs to me"):
            pipeline.push_to_hub("you/walk")
        assert writes(online) == []

    def test_a_repository_of_another_type(self, api, saved):
        api.create_repo("me/motions", repo_type="dataset")
        with pytest.raises(ValueError, match="me/motions exists and is a data set, not a model; choose another name"):
            push_folder(saved, "me/motions")
        with pytest.raises(OSError, match=r"'me/motions' is no folder.* it is a data set, not a model"):
            EgoMotionPipeline.from_pretrained("me/motions")

    def test_public_where_private_was_asked_for(self, api, pipeline):
        api.create_repo("me/walk")
        with pytest.raises(ValueError, match="me/walk exists and is public"):
            pipeline.push_to_hub("me/walk", private=True)
        assert api.list_repo_files("me/walk") == [".gitattributes"]


class TestWhat:
    def test_folders_that_hold_nothing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="is no folder"):
            check_folder(tmp_path / "absent")
        (tmp_path / "sub").mkdir()
        with pytest.raises(ValueError, match="holds no file to push"):
            check_folder(tmp_path)
        (tmp_path / "sub" / "a.txt").touch()
        assert check_folder(tmp_path) == ["sub/a.txt"]
        with pytest.raises(ValueError, match="holds no file to push"):
            check_folder(tmp_path, ["*.parquet"])

    def test_pickles_beside_the_weights(self, online, pipeline, saved):
        torch.save({}, saved / "denoiser" / "optimizer.pt")
        with pytest.raises(ValueError, match=r"optimizer\.pt is a pickle, which is never pushed"):
            pipeline.save_pretrained(saved, push_to_hub=True, repo_id="me/walk")
        assert online.store.repos == {}
        assert WEIGHTS in check_folder(saved, ["*.safetensors", "*.json"])

    def test_pickles_are_not_written(self, pipeline, tmp_path):
        for part in (pipeline, pipeline.denoiser):
            with pytest.raises(ValueError, match="safe_serialization=False"):
                part.push_to_hub("me/walk", safe_serialization=False)

    def test_pickles_are_not_loaded(self, api, saved):
        (saved / WEIGHTS).unlink()
        torch.save(tiny_denoiser().state_dict(), saved / "denoiser" / "diffusion_pytorch_model.bin")
        api.create_repo("me/walk")
        api.upload_folder(folder_path=saved, repo_id="me/walk")
        with pytest.raises(ValueError, match=r"denoiser/diffusion_pytorch_model\.bin of me/walk is a pickle"):
            EgoMotionPipeline.from_pretrained("me/walk")
        with pytest.raises(ValueError, match=r"denoiser/diffusion_pytorch_model\.bin of me/walk is a pickle"):
            EgoMotionDenoiser.from_pretrained("me/walk", subfolder="denoiser")
        with pytest.raises(ValueError, match="use_safetensors=False"):
            EgoMotionDenoiser.from_pretrained("me/walk", subfolder="denoiser", use_safetensors=False)

    def test_damaged_weights(self, saved):
        (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-1])
        with pytest.raises(ValueError, match="damaged or cut short"):
            check_folder(saved)

    @pytest.mark.parametrize("target", ["passwords.txt", "private"])
    def test_links_out_of_the_folder(self, saved, tmp_path, target):
        (tmp_path / "passwords.txt").write_text("secret")
        (tmp_path / "private").mkdir()
        (saved / "notes").symlink_to(tmp_path / target)
        with pytest.raises(ValueError, match="notes leads out of the folder"):
            check_folder(saved)
        (saved / "notes").unlink()
        (saved / "again.json").symlink_to(saved / "model_index.json")
        assert "again.json" in check_folder(saved)

    def test_paths_that_leave_the_repository(self, api, saved):
        with pytest.raises(ValueError, match=r"Invalid `path_in_repo`.*\.\."):
            push_folder(saved, "me/walk", path_in_repo="a/../..")
        assert api.list_repo_files("me/walk") == [".gitattributes"]
        with pytest.raises(ValueError, match="path_in_repo"):
            CommitOperationAdd("../a", b"")

    def test_no_path_of_this_machine(self, online, pipeline, saved):
        loaded = EgoMotionPipeline.from_pretrained(saved)
        assert str(saved) in loaded.denoiser.config._name_or_path
        loaded.push_to_hub("me/walk")
        files = online.store.repos["model", "me/walk"].commit("main").files
        for path in files:
            assert str(saved.parent).encode() not in online.store.object(files[path].sha256).read_bytes(), path

    def test_a_card_that_is_there_stays(self, api, pipeline, saved):
        pipeline.push_to_hub("me/walk")
        text = Path(api.hf_hub_download("me/walk", "README.md")).read_text()
        assert "Nothing was stated about its training" in text
        assert 'EgoMotionPipeline.from_pretrained("me/walk")' in text
        (saved / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nTrained for long.\n")
        pipeline.save_pretrained(saved, push_to_hub=True, repo_id="me/walk")
        pipeline.push_to_hub("me/walk")
        assert "Trained for long" in Path(api.hf_hub_download("me/walk", "README.md")).read_text()
        assert "Trained for long" in (saved / "README.md").read_text()


class TestOnTheWay:
    def test_an_upload_that_breaks_off_can_be_repeated(self, api, online, pipeline):
        online.fail("PUT", "/upload/", "cut")
        online.fail("POST", "/commit/", "cut")
        with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
            pipeline.push_to_hub("me/walk")
        assert api.list_repo_files("me/walk") == [".gitattributes"]
        with pytest.raises(OSError, match=r"no model_index\.json"):
            EgoMotionPipeline.from_pretrained("me/walk")
        sent = sum("/upload/" in request for request in online.requests)
        pipeline.push_to_hub("me/walk")
        assert sum("/upload/" in request for request in online.requests) == sent
        assert weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser) == weights(pipeline.denoiser)

    def test_a_busy_hub(self, online, pipeline):
        for path, how in {"/preupload/": 429, "/lfs/objects/batch": 503, "/verify": 500}.items():
            online.fail("POST", path, how, times=2)
        pipeline.push_to_hub("me/walk")
        for path, how in {"/tree/": 429, "/storage/": 429}.items():
            online.fail("GET", path, how, times=2)
        online.fail("HEAD", "safetensors", 503)
        online.fail("GET", "/storage/", "truncated")
        assert weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser) == weights(pipeline.denoiser)
        assert all(fault.times == 0 for fault in online.faults)

    @pytest.mark.parametrize("file", [WEIGHTS, "denoiser/config.json", "model_index.json"])
    def test_a_flipped_bit_is_noticed(self, online, pipeline, file):
        """The size is right, so that huggingface_hub lets it pass."""
        pipeline.push_to_hub("me/walk")
        sha256 = online.store.repos["model", "me/walk"].commit("main").files[file].sha256
        online.fail("GET", f"/storage/{sha256}|resolve/.*/{file}", "corrupted")
        with pytest.raises(OSError, match=f"{file} of me/walk was damaged on its way"):
            EgoMotionPipeline.from_pretrained("me/walk")
        assert weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser) == weights(pipeline.denoiser)

    def test_files_are_compared_with_their_digests_once(self, online, pipeline, monkeypatch):
        """Not at every load: only what came anew, or was written since."""
        compared = []
        is_whole = client._is_whole
        monkeypatch.setattr(client, "_is_whole", lambda link: compared.append(link.name) or is_whole(link))
        pipeline.push_to_hub("me/walk")
        folder = hub.fetch("me/walk", ["*"])
        assert sorted(compared) == sorted(path.name for path in folder.rglob("*") if path.is_file())
        compared.clear()
        EgoMotionPipeline.from_pretrained("me/walk")
        assert compared == []
        hub.fetch("me/walk", [WEIGHTS], force_download=True)
        assert "diffusion_pytorch_model.safetensors" in compared
        content = bytearray((folder / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / WEIGHTS).resolve().write_bytes(content)
        with pytest.raises(OSError, match=f"{WEIGHTS} of me/walk was damaged on its way"):
            EgoMotionPipeline.from_pretrained("me/walk")
        assert weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser) == weights(pipeline.denoiser)

    def test_a_revision_that_is_none(self, pipeline, online):
        pipeline.push_to_hub("me/walk")
        for load in (EgoMotionPipeline.from_pretrained, EgoMotionDenoiser.from_pretrained):
            with pytest.raises(OSError, match="it has no such revision"):
                load("me/walk", revision="v9")

    def test_training_checkpoints_stay_on_the_hub(self, api, online, pipeline, tmp_path):
        pipeline.push_to_hub("me/walk")
        (tmp_path / "last").mkdir()
        pipeline.denoiser.save_pretrained(tmp_path / "last")
        push_folder(tmp_path / "last", "me/walk", path_in_repo="last-checkpoint")
        online.requests.clear()
        folder = Path(EgoMotionPipeline.from_pretrained("me/walk").denoiser.config._name_or_path).parent
        assert not any("last-checkpoint" in request for request in online.requests)
        assert json.loads((folder / "model_index.json").read_text())["window"] == 16
