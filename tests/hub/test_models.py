"""Perceptual models and adapters on the Hub; the pipeline and its denoiser have tests of their own."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from motion_grpo import EgoMotionPipeline, MotionPerceptualModel
from motion_grpo.hub import push_folder
from tests.hub.processes.digests import weights
from tests.tiny import head_poses, tiny_perceptual_model, tiny_pipeline

ADAPTER = "pytorch_lora_weights.safetensors"


def with_adapter(pipeline: EgoMotionPipeline, name: str = "default", rank: int = 2) -> EgoMotionPipeline:
    pipeline.denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=4, target_modules=["mlp0", "sattn_out_proj"]), name)
    for part, parameter in pipeline.denoiser.named_parameters():
        if f"lora_B.{name}" in part:
            torch.nn.init.normal_(parameter)
    return pipeline


def save(pipeline: EgoMotionPipeline, folder: Path, name: str = "default", **options) -> None:
    layers = get_peft_model_state_dict(pipeline.denoiser, adapter_name=name)
    config = pipeline.denoiser.peft_config[name].to_dict()
    pipeline.save_lora_weights(folder, layers, denoiser_lora_adapter_metadata=config, **options)


def recovered(pipeline: EgoMotionPipeline) -> torch.Tensor:
    latents = torch.full((1, 20, pipeline.denoiser.state_layout.dim), 0.5)
    return pipeline(head_poses(20), latents=latents, eta=0.0, output_type="latent").latents


@pytest.fixture
def base(tmp_path) -> Path:
    tiny_pipeline(2).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


class TestPerceptualModel:
    def test_there_and_back(self, api, online, monkeypatch):
        first, second = tiny_perceptual_model(), tiny_perceptual_model()
        first.push_to_hub("me/critic")
        api.create_tag("me/critic", tag="v1")
        second.push_to_hub("critic", commit_message="better")
        assert weights(MotionPerceptualModel.from_pretrained("me/critic")) == weights(second) != weights(first)
        assert weights(MotionPerceptualModel.from_pretrained("me/critic", revision="v1")) == weights(first)
        assert (
            'MotionPerceptualModel.from_pretrained("me/critic")'
            in Path(api.hf_hub_download("me/critic", "README.md")).read_text()
        )
        asked = len(online.requests)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert weights(MotionPerceptualModel.from_pretrained("me/critic", revision="v1")) == weights(first)
        with pytest.raises(OSError, match="HF_HUB_OFFLINE is set, and the cache does not hold it"):
            MotionPerceptualModel.from_pretrained("me/absent")
        assert len(online.requests) == asked

    def test_private(self, online, monkeypatch, tmp_path):
        model = tiny_perceptual_model()
        model.push_to_hub("me/critic", private=True)
        assert weights(MotionPerceptualModel.from_pretrained("me/critic")) == weights(model)
        monkeypatch.setenv("HF_TOKEN", "hf_you")
        with pytest.raises(OSError, match="it is private and this token may not read it"):
            MotionPerceptualModel.from_pretrained("me/critic", cache_dir=tmp_path / "of another user")

    def test_folders_beside_the_weights_are_left_there(self, online, tmp_path):
        """A checkpoint of a training has a config.json and weights of its own."""
        last, model = tiny_perceptual_model(), tiny_perceptual_model()
        last.save_pretrained(tmp_path / "last")
        torch.save({}, tmp_path / "last" / "optimizer.pt")
        (tmp_path / "run").mkdir()
        (tmp_path / "last").rename(tmp_path / "run" / "last-checkpoint")
        model.save_pretrained(tmp_path / "run")
        with pytest.raises(ValueError, match=r"optimizer\.pt is a pickle"):
            push_folder(tmp_path / "run", "me/critic", checkpoint="last")
        push_folder(tmp_path / "run", "me/critic", checkpoint="last-checkpoint")
        online.requests.clear()
        assert weights(MotionPerceptualModel.from_pretrained("me/critic")) == weights(model)
        assert not any("last-checkpoint" in request for request in online.requests)


class TestAdapters:
    def test_there_and_back(self, online, base, tmp_path):
        trained = with_adapter(EgoMotionPipeline.from_pretrained(base))
        save(trained, tmp_path / "lora", push_to_hub=True, repo_id="me/lora", private=True)
        files = online.store.repos["model", "me/lora"].commit("main").files
        assert set(files) == {".gitattributes", "README.md", ADAPTER}
        assert online.store.repos["model", "me/lora"].private
        plain = recovered(EgoMotionPipeline.from_pretrained(base))
        weights = load_file(tmp_path / "lora" / ADAPTER)
        assert all(name.startswith("denoiser.") for name in weights)
        for place in ("me/lora", tmp_path / "lora", tmp_path / "lora" / ADAPTER):
            pipeline = EgoMotionPipeline.from_pretrained(base)
            pipeline.load_lora_weights(place, "mine")
            assert torch.equal(recovered(pipeline), recovered(trained))
            assert (recovered(pipeline) - plain).abs().max() > 1e-2
        assert pipeline.get_list_adapters() == {"denoiser": ["mine"]}
        # diffusers' verbs
        pipeline.set_adapters("mine", 0.0)
        torch.testing.assert_close(recovered(pipeline), plain)
        pipeline.unload_lora_weights()
        assert torch.equal(recovered(pipeline), plain)

    def test_fused_and_saved_with_the_rest(self, base, tmp_path):
        pipeline = with_adapter(EgoMotionPipeline.from_pretrained(base))
        for write in (pipeline.save_pretrained, pipeline.denoiser.save_pretrained):
            with pytest.raises(ValueError, match=r"has an adapter.*save_lora_adapter"):
                write(tmp_path / "out")
        adapted = recovered(pipeline)
        pipeline.fuse_lora()
        pipeline.unfuse_lora()
        torch.testing.assert_close(recovered(pipeline), adapted, rtol=1e-4, atol=1e-5)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        pipeline.save_pretrained(tmp_path / "out")
        saved = recovered(EgoMotionPipeline.from_pretrained(tmp_path / "out"))
        torch.testing.assert_close(saved, adapted, rtol=1e-4, atol=1e-5)

    def test_diffusers_verbs(self, base, tmp_path):
        """Saved by the class from named layers; loaded as a file, as a state dict, and as the model alone saves it."""
        trained = with_adapter(EgoMotionPipeline.from_pretrained(base))
        layers = get_peft_model_state_dict(trained.denoiser)
        config = trained.denoiser.peft_config["default"].to_dict()
        EgoMotionPipeline.save_lora_weights(
            save_directory=tmp_path / "lora",
            denoiser_lora_layers=layers,
            denoiser_lora_adapter_metadata=config,
        )
        weights, metadata = EgoMotionPipeline.lora_state_dict(tmp_path / "lora", return_lora_metadata=True)
        assert set(weights) == {f"denoiser.{name}" for name in layers}
        assert metadata["denoiser.lora_alpha"] == 4
        trained.denoiser.save_lora_adapter(tmp_path / "of the model")
        for source in (tmp_path / "lora", tmp_path / "of the model"):
            pipeline = EgoMotionPipeline.from_pretrained(base)
            pipeline.load_lora_weights(source)
            assert torch.equal(recovered(pipeline), recovered(trained))
        # A state dict says nothing of lora_alpha, which is then the rank: half of it here.
        pipeline, half = (EgoMotionPipeline.from_pretrained(base) for _ in range(2))
        pipeline.load_lora_weights(weights, adapter_name="given", low_cpu_mem_usage=True)
        half.load_lora_weights(tmp_path / "lora", "weaker")
        half.set_adapters("weaker", 0.5)
        torch.testing.assert_close(recovered(pipeline), recovered(half))
        assert set(weights) == {f"denoiser.{name}" for name in layers}
        pipeline.load_lora_weights(tmp_path / "lora", adapter_name="second")
        pipeline.set_adapters(["given", "second"], [0.0, 1.0])
        torch.testing.assert_close(recovered(pipeline), recovered(trained))
        pipeline.delete_adapters("given")
        assert pipeline.get_list_adapters() == {"denoiser": ["second"]}

    def test_an_adapter_fuses_with_a_scale(self, base):
        pipeline = with_adapter(EgoMotionPipeline.from_pretrained(base))
        pipeline.set_adapters("default", 0.5)
        half = recovered(pipeline)
        pipeline.set_adapters("default", 1.0)
        pipeline.fuse_lora(["denoiser"], 0.5)
        pipeline.unload_lora_weights()
        torch.testing.assert_close(recovered(pipeline), half, rtol=1e-4, atol=1e-5)

    def test_dora_and_biases_are_adapters_too(self, base, tmp_path):
        for name, options in {"dora": {"use_dora": True}, "bias": {"lora_bias": True}}.items():
            trained = EgoMotionPipeline.from_pretrained(base)
            trained.denoiser.add_adapter(LoraConfig(r=2, target_modules=["mlp0"], init_lora_weights=False, **options))
            save(trained, tmp_path / name)
            pipeline = EgoMotionPipeline.from_pretrained(base)
            pipeline.load_lora_weights(tmp_path / name)
            assert torch.equal(recovered(pipeline), recovered(trained))

    def test_what_has_no_layer_of_the_denoiser_changes_nothing(self, base):
        pipeline = EgoMotionPipeline.from_pretrained(base)
        before = recovered(pipeline)
        pipeline.load_lora_weights({"lora_foo": torch.tensor(2.0)})  # diffusers warns
        assert torch.equal(recovered(pipeline), before)
        assert pipeline.get_list_adapters() == {}

    def test_one_of_several(self, base, tmp_path):
        pipeline = EgoMotionPipeline.from_pretrained(base)
        with pytest.raises(ValueError, match="denoiser_lora_layers is empty; pass peft"):
            pipeline.save_lora_weights(tmp_path)
        with_adapter(with_adapter(pipeline, "a"), "b", rank=3)
        save(pipeline, tmp_path, "b")
        assert {min(value.shape) for value in load_file(tmp_path / ADAPTER).values()} == {3}
        assert {path.name for path in tmp_path.iterdir()} == {"base", ADAPTER}
        # Beside those that are there, which peft has wrapped the layers of.
        pipeline.load_lora_weights(tmp_path, "again")
        assert pipeline.get_list_adapters() == {"denoiser": ["a", "b", "again"]}

    def test_what_is_no_adapter_of_this_network(self, online, base, tmp_path):
        pipeline = EgoMotionPipeline.from_pretrained(base)
        save(with_adapter(tiny_pipeline(2, d_feedforward=24)), tmp_path / "wide")
        save_file({"x.lora_A.weight": torch.zeros(2, 16)}, tmp_path / "wide" / "x.safetensors")
        save_file({"encoder.weight": torch.zeros(2, 16)}, tmp_path / "wide" / "full.safetensors")
        for file in (ADAPTER, "x.safetensors", "full.safetensors"):
            with pytest.raises(
                ValueError, match=r"is no adapter of this network: .* (does not fit|is no weight of a LoRA)"
            ):
                pipeline.load_lora_weights(tmp_path / "wide", weight_name=file)
        with pytest.raises(
            ValueError, match=r"The state dict is no adapter of this network: mlp9\.lora_A\.weight \(2, 3\)"
        ):
            pipeline.load_lora_weights({"denoiser.mlp9.lora_A.weight": torch.zeros(2, 3)})
        whole = (tmp_path / "wide" / ADAPTER).read_bytes()
        (tmp_path / "wide" / ADAPTER).write_bytes(whole[:-1])
        with pytest.raises(ValueError, match="damaged or cut short"):
            pipeline.load_lora_weights(tmp_path / "wide")
        assert pipeline.get_list_adapters() == {}
        with pytest.raises(ValueError, match="adapters are loaded from safetensors only"):
            pipeline.load_lora_weights(tmp_path / "wide", weight_name="pytorch_lora_weights.bin")
        with pytest.raises(ValueError, match="adapters are loaded from safetensors only"):
            pipeline.load_lora_weights(tmp_path / "wide", use_safetensors=False)
        for options in ({"safe_serialization": False}, {"weight_name": "pytorch_lora_weights.bin"}):
            with pytest.raises(ValueError, match="safetensors only, never as a pickle"):
                EgoMotionPipeline.save_lora_weights(tmp_path / "no", {"x": torch.zeros(1)}, **options)
        assert not (tmp_path / "no").exists()
        HfApi(endpoint=online.url).create_repo("me/empty")
        for place in (base, "me/empty"):
            with pytest.raises(FileNotFoundError, match=f"{place} holds no adapter: it has no {ADAPTER}"):
                pipeline.load_lora_weights(place)
        with pytest.raises(FileNotFoundError, match="me/absent cannot be had from the Hub: there is no such"):
            pipeline.load_lora_weights("me/absent")
        with pytest.raises(TypeError, match="knows no option 'prefix'"):
            pipeline.load_lora_weights(base, prefix="unet")

    def test_pushed_to_nobody(self, online, base, tmp_path, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        pipeline = with_adapter(EgoMotionPipeline.from_pretrained(base))
        with pytest.raises(OSError, match="there is no token"):
            save(pipeline, tmp_path / "lora", push_to_hub=True)
        assert not (tmp_path / "lora").exists()
