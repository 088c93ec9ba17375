"""The Hugging Face Hub: fetching and pushing with checks on both sides, and the mixin that gives classes both."""

from motion_grpo.hub.client import (
    LOAD_OPTIONS,
    PICKLES,
    PUSH_OPTIONS,
    check_folder,
    check_repo,
    fetch,
    fetch_component,
    fetch_pipeline,
    make_repo,
    push_folder,
    push_with_card,
    refuse_damaged,
)
from motion_grpo.hub.mixin import HubMixin

__all__ = [
    "LOAD_OPTIONS", "PICKLES", "PUSH_OPTIONS", "HubMixin", "check_folder", "check_repo", "fetch", "fetch_component",
    "fetch_pipeline", "make_repo", "push_folder", "push_with_card", "refuse_damaged",
]  # fmt: skip
