"""Pushes everything there is, by the verbs people know; prints digests of the weights and the commits."""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import HfApi
from motion_grpo.cli import main as cli

from motion_grpo import EgoMotionPipeline, EgoMotionSDEScheduler
from motion_grpo.data import load_motions
from tests.hub.processes.digests import values, weights
from tests.tiny import moving_motion, tiny_denoiser, write_shard

folder = Path(sys.argv[1])
torch.manual_seed(0)


def pipeline(**changes: int) -> EgoMotionPipeline:
    scheduler = EgoMotionSDEScheduler(eta=0.7)
    return EgoMotionPipeline(tiny_denoiser(**changes), scheduler, num_inference_steps=2, window=16, overlap=4)


first, second, branched = pipeline(d_latent=64), pipeline(d_latent=64), pipeline()
facts = {"first": weights(first.denoiser), "second": weights(second.denoiser), "branched": weights(branched.denoiser)}
facts["commit"] = first.push_to_hub("me/walk", commit_message="the first").oid
HfApi().create_tag("me/walk", tag="v1")
second.save_pretrained(folder / "walk", push_to_hub=True, repo_id="me/walk")
branched.push_to_hub("me/walk", revision="small")
branched.push_to_hub("secret", private=True)
branched.denoiser.push_to_hub("me/denoiser", variant="fp16")
branched.denoiser.push_to_hub("me/denoiser")
branched.scheduler.push_to_hub("me/scheduler")


def push_data(repo_id: str, sources: str, *options: str) -> str:
    """``motion-grpo data pack``; digest of the rows."""
    out = folder / f"{repo_id} of {sources}".replace("/", " ")
    command = ["motion-grpo", "data", "pack", folder / "pack", "-o", out, "--sources", sources]
    command += ["--splits", "train", "--push-to-hub", repo_id]
    sys.argv = [str(word) for word in (*command, *options)]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise
    return values(load_motions(out, "train"))


(folder / "pack").mkdir()
for number, source in enumerate(["cmu", "bandai1"]):
    write_shard(folder / "pack", source, "train", [moving_motion(40 + i, 10 * number + i) for i in range(3)])
facts["rows v1"] = push_data("me/motions", "cmu,bandai1", "--clips-per-shard", "1")
HfApi().create_tag("me/motions", repo_type="dataset", tag="v1")
facts["rows"] = push_data("me/motions", "cmu")
push_data("motions-of-mine", "cmu", "--private")
load_motions(folder / "me motions of cmu", "train").push_to_hub("me/rows")
print(json.dumps(facts))
