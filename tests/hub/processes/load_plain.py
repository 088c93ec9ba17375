"""Loads without a token: by plain diffusers what is public, and nothing of what is private."""

from diffusers import DiffusionPipeline

plain = DiffusionPipeline.from_pretrained("me/walk", custom_pipeline="pipeline", trust_remote_code=True)

# ruff: noqa: E402
import json

from tests.hub.processes.digests import weights

facts = {"type": type(plain).__name__, "main": weights(plain.denoiser), "training": plain.denoiser.training}
from motion_grpo import EgoMotionDenoiser, EgoMotionPipeline
from motion_grpo.data import load_motions

# The same files in the cache, no code of the repository run.
facts["ours"] = weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser)
for name, load in {"pipeline": EgoMotionPipeline, "denoiser": EgoMotionDenoiser}.items():
    try:
        load.from_pretrained("me/secret")
    except OSError as error:
        facts[name] = str(error)
try:
    load_motions("me/motions-of-mine", "train")
except OSError as error:
    facts["rows"] = str(error)
print(json.dumps(facts))
