"""Model and data set cards, written from the facts that runs and evaluations store."""

from motion_grpo.cards.datasets import write_dataset_card
from motion_grpo.cards.models import record_run, write_checkpoint_card, write_run_card
from motion_grpo.cards.templates import DataFacts, SourceFacts

__all__ = ["DataFacts", "SourceFacts", "record_run", "write_checkpoint_card", "write_dataset_card", "write_run_card"]
