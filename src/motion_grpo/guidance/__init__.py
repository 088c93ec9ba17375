"""Test-time optimization: feet that stand do not slide, hands are where they were seen."""

from motion_grpo.guidance.config import MODES, GuidanceConfig, GuidanceMode
from motion_grpo.guidance.guide import GuidanceReport, Guide
from motion_grpo.guidance.observed import seen_hands
from motion_grpo.guidance.terrain import Terrain

__all__ = ["MODES", "GuidanceConfig", "GuidanceMode", "GuidanceReport", "Guide", "Terrain", "seen_hands"]
