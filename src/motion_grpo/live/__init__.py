"""Live: where head poses come from, where bodies go to, and what runs between them."""

from motion_grpo.live.session import run

__all__ = ["run"]
