"""Loads from the cache alone."""

import json

from motion_grpo import EgoMotionDenoiser, EgoMotionPipeline
from motion_grpo.data import load_motions
from tests.hub.processes.digests import values, weights

facts = {"main": weights(EgoMotionPipeline.from_pretrained("me/walk").denoiser)}
facts["v1"] = weights(EgoMotionPipeline.from_pretrained("me/walk", revision="v1").denoiser)
facts["denoiser"] = weights(EgoMotionDenoiser.from_pretrained("me/denoiser"))
facts["rows"] = values(load_motions("me/motions", "train"))
facts["rows v1"] = values(load_motions("me/motions", "train", revision="v1"))
try:
    EgoMotionPipeline.from_pretrained("me/absent")
except OSError as error:
    facts["absent"] = str(error)
print(json.dumps(facts))
