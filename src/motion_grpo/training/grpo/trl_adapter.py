"""Names inside TRL, transformers and accelerate that the trainers override or call, though nobody promises them.

They fence the versions that can be used: as long as they are there, a newer one is taken.
"""

from importlib import import_module
from importlib.metadata import version
from pkgutil import resolve_name

RELIED_ON = {
    "trl.trainer.base_trainer:_BaseTrainer": ("_send_telemetry", "create_model_card"),
    "trl:GRPOTrainer": (
        "_set_signature_columns_if_needed",
        "_get_train_sampler",
        "_generate_and_score_completions",
        "_prepare_inputs",
        "_log_metric",
        "_save_checkpoint",
        "training_step",
    ),
    "trl.trainer.utils:RepeatSampler": ("__iter__",),
    "transformers:Trainer": (
        "_save",
        "_save_checkpoint",
        "_load_from_checkpoint",
        "_load_best_model",
        "_get_dataloader",
        "_push_from_checkpoint",
    ),
    "transformers.utils:PushInProgress": ("is_done",),
    "accelerate.state:GradientState": ("_set_sync_gradients",),
}
"""Attributes by the class that defines them."""
TESTED = {"trl": "1.16.0", "transformers": "5.24.0", "accelerate": "1.15.0"}


def check_relied_on() -> None:
    """Checks that the installed packages still have what the trainers rely on.

    Raises:
        ImportError: one has it no more.
    """
    for place, names in RELIED_ON.items():
        module, _, owner = place.partition(":")
        package = module.partition(".")[0]
        import_module(package)
        try:
            there = vars(resolve_name(place))
        except (ImportError, AttributeError):
            there = {}
        if missing := [name for name in names if name not in there]:
            tested = " ".join(f'"{name}=={number}"' for name, number in TESTED.items())
            raise ImportError(
                f"{package} {version(package)} has no {owner}.{missing[0]}, which motion-grpo's trainers rely on; "
                f"install the versions that they are tested with: pip install {tested}."
            )
