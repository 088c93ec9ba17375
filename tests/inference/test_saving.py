"""Pipelines in folders: what is written, what is loaded, what is refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
)
from safetensors.torch import load_file, save_file

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.body import HEAD
from motion_grpo.models import EgoMotionDenoiser
from tests.inference.setup import pipeline, seeded
from tests.tiny import GOLDEN, head_poses, head_trajectory, tiny_denoiser

WEIGHTS = "denoiser/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipe"
    # Small windows, so that what the settings say matters for the result.
    pipeline(window=16, overlap=4, normalize_cond=True, rotation_representation="6d").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A saved pipeline that a test may damage."""
    for path in saved.rglob("*"):
        if path.is_file():
            target = tmp_path / "pipe" / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "pipe"


_FRESH = """
import sys
import numpy as np
import torch
from diffusers import DiffusionPipeline

folder, poses, out = sys.argv[1:]
poses = torch.from_numpy(np.load(poses))
joints = lambda pipe: pipe(poses, generator=torch.Generator().manual_seed(7)).motion.joints.numpy()
plain = DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)
by_diffusers = joints(plain)
plain.save_pretrained(out + "/again")
from motion_grpo import EgoMotionPipeline
pipe = EgoMotionPipeline.from_pretrained(folder)
assert type(plain) is EgoMotionPipeline, type(plain)
assert not pipe.denoiser.training and not plain.denoiser.training
np.savez(out + "/joints.npz", by_diffusers=by_diffusers, by_us=joints(pipe))
"""


class TestSaving:
    def test_files_and_published_names(self, saved):
        """Saved pipelines name these paths: they must not move."""
        index = json.loads((saved / "model_index.json").read_text())
        assert index["_class_name"] == "EgoMotionPipeline"
        assert index["denoiser"] == ["motion_grpo.models.denoiser", "EgoMotionDenoiser"]
        assert index["scheduler"] == ["motion_grpo.schedulers.ego_motion_sde", "EgoMotionSDEScheduler"]
        assert (index["num_inference_steps"], index["window"], index["overlap"]) == (3, 16, 4)
        assert {str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file()} == {
            "model_index.json", "pipeline.py", "denoiser/config.json", WEIGHTS, "scheduler/scheduler_config.json",
            "denoiser/motion_grpo.models.denoiser.py", "scheduler/motion_grpo.schedulers.ego_motion_sde.py",
        }  # fmt: skip

    @pytest.mark.slow
    def test_loads_in_a_fresh_process(self, saved, tmp_path):
        """With the class, and by diffusers alone through the pipeline.py that travels with the weights."""
        np.save(tmp_path / "poses.npy", head_poses(40).numpy())
        environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", _FRESH, str(saved), str(tmp_path / "poses.npy"), str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        expected = EgoMotionPipeline.from_pretrained(saved)(head_poses(40), generator=seeded(7)).motion.joints.numpy()
        with np.load(tmp_path / "joints.npz", allow_pickle=False) as joints:
            np.testing.assert_array_equal(joints["by_us"], expected)
            np.testing.assert_array_equal(joints["by_diffusers"], expected)
        # Saved once more after diffusers loaded it, it is still the same pipeline.
        again, first = (json.loads((f / "model_index.json").read_text()) for f in (tmp_path / "again", saved))
        assert again == first

    @pytest.mark.parametrize("scheduler", [None, DDIMScheduler])
    def test_plain_diffusers_loads_it_where_this_library_is_imported(self, saved, scheduler, tmp_path):
        """Without being told to trust the files that travel with it, which are for where it is not."""
        ours = EgoMotionPipeline.from_pretrained(saved)
        if scheduler is not None:
            ours.scheduler = scheduler.from_config(ours.scheduler.config, timestep_spacing="trailing")
        ours.save_pretrained(tmp_path)
        plain = DiffusionPipeline.from_pretrained(tmp_path)
        assert type(plain) is EgoMotionPipeline
        assert type(plain.scheduler) is type(ours.scheduler)
        assert not plain.denoiser.training
        a, b = (p(head_trajectory(20), generator=seeded()).latents for p in (ours, plain))
        assert torch.equal(a, b)
        plain.save_pretrained(tmp_path / "again")
        index = json.loads((tmp_path / "again" / "model_index.json").read_text())
        assert index == json.loads((tmp_path / "model_index.json").read_text())

    def test_round_trip_keeps_settings_and_bits(self, saved):
        pipe = pipeline(window=16, overlap=4, normalize_cond=True, rotation_representation="6d")
        loaded = EgoMotionPipeline.from_pretrained(saved)
        for ours, theirs in ((pipe.denoiser.config, loaded.denoiser.config), (pipe.config, loaded.config)):
            assert {k: v for k, v in ours.items() if k[0] != "_"} == {k: v for k, v in theirs.items() if k[0] != "_"}
        for name in ("timestep_spacing", "eta", "variance", "direction_offset"):
            assert loaded.scheduler.config[name] == pipe.scheduler.config[name]
        for name, value in pipe.denoiser.state_dict().items():
            assert torch.equal(loaded.denoiser.state_dict()[name], value), name
        a, b = (p(head_trajectory(40), generator=seeded()).motion.joints for p in (pipe, loaded))
        # Weights mapped from a file lie differently in memory, where sums may be rounded in another order.
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)

    def test_how_steady_the_neck_is_held_is_saved_and_used(self, tmp_path):
        pipe = EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), 3, 16, 4, neck_low_pass=1.5)
        pipe.save_pretrained(tmp_path)
        loaded = EgoMotionPipeline.from_pretrained(tmp_path)
        steady = loaded(head_trajectory(20), generator=torch.Generator().manual_seed(0)).motion
        loaded.register_to_config(neck_low_pass=0.0)
        plain = loaded(head_trajectory(20), generator=torch.Generator().manual_seed(0)).motion
        assert not torch.equal(steady.body_rotmats[:, HEAD - 1], plain.body_rotmats[:, HEAD - 1])
        torch.testing.assert_close(steady.body_rotmats[:, : HEAD - 1], plain.body_rotmats[:, : HEAD - 1])
        torch.testing.assert_close(steady.posed.rotmats[:, HEAD], plain.posed.rotmats[:, HEAD], atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="neck_low_pass must be 0"):
            EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), neck_low_pass=-1.0)

    def test_the_stitching_is_saved_and_used(self, tmp_path):
        pipe = EgoMotionPipeline(tiny_denoiser(), EgoMotionSDEScheduler(), 3, 16, 4, stitching="egoallo")
        pipe.save_pretrained(tmp_path)
        loaded = EgoMotionPipeline.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        assert loaded.config.stitching == "egoallo"
        head, noise = head_trajectory(40), torch.randn(1, 40, 226)

        def joints(p):
            return p(head, latents=noise, eta=0.0).motion.joints

        theirs = joints(loaded)
        loaded.register_to_config(stitching="crossfade")
        assert (joints(loaded) - theirs).abs().max() > 1e-3

    def test_another_scheduler_survives(self, tmp_path):
        pipe = pipeline(steps=2)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        pipe.save_pretrained(tmp_path)
        loaded = EgoMotionPipeline.from_pretrained(tmp_path)
        assert isinstance(loaded.scheduler, DDIMScheduler)
        a, b = (p(head_trajectory(9), generator=seeded()).latents for p in (pipe, loaded))
        assert torch.equal(a, b)

    def test_half_precision_files_are_read_as_float32(self, tmp_path):
        pipe = pipeline()
        expected = {k: v.half().float() for k, v in pipe.denoiser.state_dict().items()}
        pipe.to(dtype=torch.float16).save_pretrained(tmp_path)
        assert {v.dtype for v in load_file(tmp_path / WEIGHTS).values()} == {torch.float16}
        loaded = EgoMotionPipeline.from_pretrained(tmp_path)
        for name, value in loaded.denoiser.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
        assert loaded(head_trajectory(9), generator=seeded()).motion.joints.dtype == torch.float32
        asked = EgoMotionPipeline.from_pretrained(tmp_path, dtype=torch.float16)
        assert asked.denoiser.dtype == torch.float16

    def test_never_writes_a_pickle(self, tmp_path):
        with pytest.raises(ValueError, match="safe_serialization=False"):
            pipeline().save_pretrained(tmp_path / "pipe", safe_serialization=False)
        assert not (tmp_path / "pipe").exists()


class _Bomb:
    """Makes the file it names when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class TestLoading:
    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
            EgoMotionPipeline.from_pretrained(tmp_path)

    def test_an_unknown_name(self):
        with pytest.raises(OSError, match="'nonesuch' is no folder, no checkpoint that ships"):
            EgoMotionPipeline.from_pretrained("nonesuch")

    def test_no_weights(self, copy):
        (copy / WEIGHTS).unlink()
        with pytest.raises(FileNotFoundError, match=r"holds no diffusion_pytorch_model\.safetensors"):
            EgoMotionPipeline.from_pretrained(copy)

    @pytest.mark.parametrize("stray", [False, True])
    def test_pickles_are_refused_and_not_run(self, copy, tmp_path, stray):
        """Even where some other safetensors file lies beside the pickle."""
        weights = load_file(copy / WEIGHTS)
        (copy / WEIGHTS).unlink()
        if stray:
            save_file(weights, copy / "denoiser/adapter.safetensors")
        sign = tmp_path / "was run"
        pickled = copy / "denoiser/diffusion_pytorch_model.bin"
        pickled.write_bytes(pickle.dumps(_Bomb(sign)))
        with pytest.raises((ValueError, OSError), match="is a pickle" if not stray else "no file named .*safetensors"):
            EgoMotionPipeline.from_pretrained(copy)
        assert not sign.exists()
        with pytest.raises(ValueError, match="use_safetensors=False"):
            EgoMotionDenoiser.from_pretrained(copy / "denoiser", use_safetensors=False)
        pickle.loads(pickled.read_bytes())
        assert sign.exists()  # it would have

    @pytest.mark.parametrize("length", [0, 4, 2000])
    def test_cut_short(self, copy, length):
        (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:length])
        with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.safetensors is damaged or cut short"):
            EgoMotionPipeline.from_pretrained(copy)

    def test_a_weight_of_another_shape_is_named(self, copy):
        weights = load_file(copy / WEIGHTS)
        weights["latent_from_cond.weight"] = weights["latent_from_cond.weight"][:5].clone()
        save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"denoiser does not fit its config.json: latent_from_cond\.weight.*154"):
            EgoMotionPipeline.from_pretrained(copy)

    def test_a_missing_weight_is_named_and_not_drawn_at_random(self, copy):
        weights = load_file(copy / WEIGHTS)
        del weights["noise_emb.weight"]
        save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks 1 weight.*: noise_emb\.weight\."):
            EgoMotionPipeline.from_pretrained(copy)

    def test_shipped_checkpoints_go_by_their_name(self, saved, monkeypatch, tmp_path):
        monkeypatch.setattr("motion_grpo.inference.pipeline._EMBEDDED", saved.parent)
        monkeypatch.chdir(tmp_path)
        assert EgoMotionPipeline.from_pretrained("pipe").config.window == 16
        with pytest.raises(OSError, match=r"'base' is no folder, no checkpoint that ships with this package \(pipe\)"):
            EgoMotionPipeline.from_pretrained()


def test_from_egoallo():
    pipe = EgoMotionPipeline.from_egoallo(GOLDEN / "egoallo_token_rope")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.skeleton.name == "mannequin-x-symmetric"
    assert pipe.scheduler.config.variance == "single_level"
    assert pipe.config.num_inference_steps == 30
    assert pipe.config.stitching == "egoallo"
    motion = pipe(head_trajectory(3), num_inference_steps=8, generator=seeded()).motion
    assert motion.hand_rotmats.shape == (3, 30, 3, 3)
