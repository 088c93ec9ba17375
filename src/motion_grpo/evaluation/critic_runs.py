"""A whole comparison of perceptual models, as Table 4 makes it: all are asked about the same pairs.

The output folder gets ``results.json`` (everything), ``results.md`` (accuracy on pairs of recorded and made-up motion,
how often a recording is preferred to itself off the floor, Spearman correlation with the severity of artefacts, cost)
and ``severity.png``.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import scipy
import torch

import motion_grpo
from motion_grpo.data import Clip
from motion_grpo.evaluation.critic import Pairs, accuracy, make_pairs, noticed, scoring_cost, severity_curves
from motion_grpo.evaluation.critic_report import markdown
from motion_grpo.evaluation.statistics import RESAMPLES
from motion_grpo.files import write_text
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS
from motion_grpo.motion.artefacts import SeverityCurve
from motion_grpo.provenance import code_version, state_dict_digest
from motion_grpo.viz.severity import plot_severity


@dataclass(frozen=True)
class CriticComparison:
    """What is compared, and on what."""

    models: dict[str, MotionPerceptualModel]
    """By the name that they have in the results."""
    policies: dict[str, EgoMotionPipeline]
    """What makes motion up."""
    clips: dict[str, list[Clip]]
    """Recordings by split."""
    seed: int = 0
    """Of the pairs and the artefacts."""
    window: int = 128
    """Frames of a window."""
    min_frames: int = 30
    """Ends of clips that are shorter are left out."""
    artefact_windows: int = 256
    """Windows a split that artefacts are put on."""

    def run(self, facts: dict[str, Any], output: Path, tell: Callable[[str], None] = print) -> str:
        """Makes the comparison and writes it to a folder.

        Args:
            facts: what to state beside the settings: the data set and the limit.
            output: folder for the results; made if it is not there.
            tell: is told in a few words what goes on.

        Returns:
            The tables.
        """
        output.mkdir(parents=True, exist_ok=True)
        pairs = {name: self._pairs(name, pipeline, tell) for name, pipeline in self.policies.items()}
        curves: dict[str, dict[str, dict[str, SeverityCurve]]] = {part: {} for part in self.clips}
        methods: dict[str, dict[str, Any]] = {}
        for name, model in self.models.items():
            tell(f"asking {name}")
            for part, members in self.clips.items():
                curves[part][name] = severity_curves(
                    model,
                    members,
                    self.seed,
                    self.window,
                    min_frames=self.min_frames,
                    max_windows=self.artefact_windows,
                )
            methods[name] = self._answers(model, pairs) | {
                "severity": {part: {a: asdict(curve) for a, curve in of[name].items()} for part, of in curves.items()},
                "cost": self._costs(model),
            }
        policies = {name: _policy_facts(pipeline, pairs[name]) for name, pipeline in self.policies.items()}
        results = {"settings": self._settings(facts), "policies": policies, "methods": methods}
        text = markdown(results)
        write_text(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_text(output / "results.md", text)
        plot_severity(curves, output / "severity.png")
        return text

    def _pairs(self, name: str, pipeline: EgoMotionPipeline, tell: Callable[[str], None]) -> dict[str, Pairs]:
        found = {}
        for part, members in self.clips.items():
            tell(f"drawing pairs: {name} on {part}")
            found[part] = make_pairs(pipeline, members, self.seed, self.window, min_frames=self.min_frames)
        return found

    def _answers(self, model: MotionPerceptualModel, pairs: dict[str, dict[str, Pairs]]) -> dict[str, Any]:
        def noticed_in(clips: list[Clip]) -> dict[str, Any]:
            found = noticed(model, clips, self.window, min_frames=self.min_frames)
            return {fault: asdict(of) for fault, of in found.items()}

        def accuracies(parts: dict[str, Pairs]) -> dict[str, Any]:
            return {part: asdict(accuracy(model, of)) for part, of in parts.items()}

        return _model_settings(model) | {
            "accuracy": {which: accuracies(parts) for which, parts in pairs.items()},
            "noticed": {part: noticed_in(members) for part, members in self.clips.items()},
        }

    def _costs(self, model: MotionPerceptualModel) -> dict[str, Any]:
        longest = sorted(next(iter(self.clips.values())), key=lambda clip: -len(clip.motion))[:16]
        return {
            which: asdict(scoring_cost(model, pipeline, longest, self.window))
            for which, pipeline in self.policies.items()
        }

    def _settings(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            **facts,
            "code": code_version(),
            "splits": {part: len(members) for part, members in self.clips.items()},
            "seed": self.seed,
            "window": self.window,
            "min_frames": self.min_frames,
            "artefact_windows": self.artefact_windows,
            "fps": FPS,
            "interval": f"95%, percentile bootstrap over clips with all their windows, {RESAMPLES} resamples, seed 0",
            "device": str(next(iter(self.models.values())).device),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()}
            | {m.__name__: m.__version__ for m in (motion_grpo, torch, diffusers, scipy)},
        }


def _model_settings(model: MotionPerceptualModel) -> dict[str, Any]:
    shape = ("d_latent", "num_blocks", "num_heads", "mlp_ratio", "frames_per_token", "floor_clearance")
    return {
        "checkpoint": Path(model.config["_name_or_path"]).name,
        "state_dict_sha256": state_dict_digest(model),
        "parameters": model.num_parameters(),
        **{name: model.config[name] for name in shape},
    }


def _policy_facts(pipeline: EgoMotionPipeline, pairs: dict[str, Pairs]) -> dict[str, Any]:
    return {
        "state_dict_sha256": state_dict_digest(pipeline.denoiser),
        "pairs": {
            part: {
                "windows": len(of.windows),
                "left_out": of.windows.left_out,
                "frames": int(of.windows.truth.mask.sum()),
                "sha256_float16": of.digest,
                **of.settings,
            }
            for part, of in pairs.items()
        },
    }
