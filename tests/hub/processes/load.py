"""Loads everything; to begin with, in a process that has imported nothing but the pipeline."""

from motion_grpo import EgoMotionPipeline

main = EgoMotionPipeline.from_pretrained("me/walk")

# ruff: noqa: E402
import json
import sys

from motion_grpo import EgoMotionDenoiser, EgoMotionSDEScheduler
from motion_grpo.data import load_motions
from tests.hub.processes.digests import values, weights
from tests.tiny import head_poses

commit = sys.argv[1]
facts = {"main": weights(main.denoiser), "name": main.config._name_or_path, "steps": main.config.num_inference_steps}
facts["frames"] = len(main(head_poses(20)).motion)
for name in ("v1", commit, "small"):
    facts[name] = weights(EgoMotionPipeline.from_pretrained("me/walk", revision=name).denoiser)
facts["secret"] = weights(EgoMotionPipeline.from_pretrained("me/secret").denoiser)
facts["denoiser"] = weights(EgoMotionDenoiser.from_pretrained("me/denoiser"))
facts["fp16"] = weights(EgoMotionDenoiser.from_pretrained("me/denoiser", variant="fp16"))
facts["part"] = weights(EgoMotionDenoiser.from_pretrained("me/walk", subfolder="denoiser"))
facts["eta"] = EgoMotionSDEScheduler.from_pretrained("me/scheduler").config.eta
facts["part eta"] = EgoMotionSDEScheduler.from_pretrained("me/walk", subfolder="scheduler").config.eta
given = EgoMotionPipeline.from_pretrained("me/walk", denoiser=main.denoiser)
facts["given"] = given.denoiser is main.denoiser
facts["rows"] = values(load_motions("me/motions", "train"))
facts["rows v1"] = values(load_motions("me/motions", "train", revision="v1"))
facts["rows streamed"] = values(load_motions("me/motions", "train", streaming=True))
facts["rows of mine"] = values(load_motions("me/motions-of-mine", "train"))
facts["rows by datasets"] = values(load_motions("me/rows", "train"))
print(json.dumps(facts))
