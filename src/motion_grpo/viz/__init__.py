"""Pictures of motions and of training runs."""

from motion_grpo.viz.curves import plot_grpo_run, plot_training_log
from motion_grpo.viz.strip import draw_strip

__all__ = ["draw_strip", "plot_grpo_run", "plot_training_log"]
