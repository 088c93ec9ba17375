"""Every setting of transformers and TRL is either read by a trainer or refused by it."""

from dataclasses import fields
from pathlib import Path

import pytest
from transformers import TrainingArguments
from trl import GRPOConfig

from motion_grpo.training import (
    DenoisingConfig,
    MotionDPOConfig,
    MotionGRPOConfig,
    PerceptualConfig,
    RewardGradientConfig,
)
from motion_grpo.training.settings import (
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_DENOISING,
    WITHOUT_EFFECT_GRPO,
    WITHOUT_EFFECT_PERCEPTUAL,
    WITHOUT_EFFECT_POLICY,
    mapping,
)
from tests.training.grpo.setup import config

USED = {
    "accelerator_config", "activation_checkpointing", "adam_beta1", "adam_beta2", "adam_epsilon",
    "auto_find_batch_size", "bf16", "dataloader_drop_last", "dataloader_in_order",
    "dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_persistent_workers",
    "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_backend", "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph", "ddp_timeout", "debug", "deepspeed",
    "disable_tqdm", "do_eval", "enable_jit_checkpoint", "eval_delay", "eval_on_start", "eval_steps",
    "eval_strategy", "fp16", "fsdp", "fsdp_config", "full_determinism", "gradient_accumulation_steps",
    "gradient_checkpointing", "greater_is_better", "hub_always_push", "hub_model_id", "hub_private_repo",
    "hub_revision", "hub_strategy", "hub_token", "ignore_data_skip", "learning_rate", "load_best_model_at_end",
    "local_rank", "log_level", "log_level_replica", "log_on_each_node", "logging_first_step",
    "logging_nan_inf_filter", "logging_steps", "logging_strategy", "lr_scheduler_kwargs", "lr_scheduler_type",
    "max_grad_norm", "max_steps", "metric_for_best_model", "num_train_epochs", "optim", "optim_args",
    "optim_target_modules", "output_dir", "parallelism_config", "per_device_train_batch_size", "project",
    "push_to_hub", "report_to", "restore_callback_states_from_checkpoint", "resume_from_checkpoint", "run_name",
    "save_on_each_node", "save_only_model", "save_steps", "save_strategy", "save_total_limit", "seed",
    "skip_memory_metrics", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "use_cpu", "warmup_steps", "weight_decay",
}  # fmt: skip
"""Of transformers, by every trainer: do_eval is set by eval_strategy, local_rank by launchers."""
MORE = {
    DenoisingConfig: {"data_seed", "torch_empty_cache_steps", "train_sampling_strategy"},
    PerceptualConfig: {"per_device_eval_batch_size", "torch_empty_cache_steps"},
    RewardGradientConfig: {"torch_empty_cache_steps"},
    MotionDPOConfig: {"torch_empty_cache_steps"},
    MotionGRPOConfig: {
        "beta", "epsilon", "epsilon_high", "generation_batch_size", "num_generations", "num_iterations",
        "reward_weights", "steps_per_generation",
    },
}  # fmt: skip
TABLES = {
    DenoisingConfig: WITHOUT_EFFECT_DENOISING,
    PerceptualConfig: WITHOUT_EFFECT_PERCEPTUAL,
    MotionGRPOConfig: WITHOUT_EFFECT_GRPO,
    RewardGradientConfig: WITHOUT_EFFECT_POLICY,
    MotionDPOConfig: WITHOUT_EFFECT_POLICY,
}
BASES = {kind: GRPOConfig if kind is MotionGRPOConfig else TrainingArguments for kind in TABLES}
PRESETS = {
    "dpo": MotionDPOConfig,
    "finetune": DenoisingConfig,
    "grpo": MotionGRPOConfig,
    "perceptual": PerceptualConfig,
    "pretrain": DenoisingConfig,
    "reward": RewardGradientConfig,
}
"""Settings by the first word of a preset's name."""


@pytest.mark.parametrize("kind", TABLES)
def test_every_inherited_setting_is_used_or_refused(kind):
    """A version of transformers or TRL with a new setting has to be looked at."""
    inherited = {field.name for field in fields(BASES[kind])}
    used, refused = USED | MORE[kind], set(TABLES[kind])
    assert not used & refused
    assert used | refused == inherited
    assert refused >= set(WITHOUT_EFFECT)


def other(default: object) -> object:
    """A value of the same kind that is not the default."""
    if isinstance(default, bool) or default is None:
        return not default
    if isinstance(default, int | float):
        return default + 1
    return {"a": 1} if isinstance(default, dict) else [*default, "other"] if isinstance(default, list) else "other"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_what_has_no_effect_is_refused_by_name(kind, name, tmp_path):
    (field,) = [field for field in fields(kind) if field.name == name]
    value = other(field.default if not callable(field.default_factory) else field.default_factory())
    # The shape checker would refuse some of these values before the settings see them.
    settings = object.__new__(kind)
    defaults = kind(str(tmp_path), use_cpu=True, report_to="none")
    vars(settings).update(vars(defaults) | {name: value})
    with pytest.raises(ValueError, match=rf"^{name} is .*, but has no effect here: .*; leave {name} out\.$"):
        settings.__post_init__()


@pytest.mark.parametrize(
    "given", [{"scale_rewards": "batch"}, {"loss_type": "grpo"}, {"use_vllm": True}, {"log_completions": True}]
)
def test_a_constructor_refuses_what_has_no_effect(given, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(given))} is .* has no effect here"):
        config(tmp_path, **given)


@pytest.mark.parametrize("given", ['{"rotation": 2.0}', "{rotation: 2.0}", {"rotation": 2.0}])
def test_omegas_are_a_mapping_or_its_text(given, tmp_path):
    assert config(tmp_path, reward_omegas=given).reward_omegas == {"rotation": 2.0}
    assert mapping("reward_omegas", given) == {"rotation": 2.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("2.0", "reward_omegas is '2.0'; it must be a mapping, as in"),
        ("{rotation", "reward_omegas is '{rotation'; it must be a mapping"),
        ("{rotation: fast}", "reward_omegas has 'fast' for 'rotation'; an omega is a number above 0"),
        ("{rotation: -1.0}", "reward_omegas has -1.0 for 'rotation'"),
        ("{rotation: true}", "reward_omegas has True for 'rotation'"),
    ],
)
def test_omegas_that_are_none(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, reward_omegas=given)


LAST = {"last_step_std": 0.003, "sde_window_size": 0, "num_iterations": 2}


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (LAST, 0.2),
        (LAST | {"credit": "frame", "epsilon": 0.1}, 0.2),
        (LAST | {"epsilon": 0.3, "epsilon_high": 0.1}, 0.2),
        ({"last_step_std": 0.02, "steps_per_generation": 2}, 0.2),
        ({"num_iterations": 2, "credit": "joint"}, 0.01),
        ({"num_iterations": 3, "credit": "frame"}, 0.001),
    ],
)
def test_a_clip_range_that_a_reused_rollout_would_leave_at_once(settings, least, tmp_path):
    with pytest.raises(ValueError, match=f"set epsilon to {least} or more, or set num_iterations to 1"):
        config(tmp_path, **settings)
    wide = settings | {"epsilon": least, "epsilon_high": least}
    assert config(tmp_path, **wide).epsilon == least


def test_summed_densities_of_the_last_step_serve_one_update(tmp_path):
    with pytest.raises(ValueError, match="moves summed log densities by many nats"):
        config(tmp_path, **LAST, log_prob_reduction="sum", epsilon=0.2)
    config(tmp_path, num_iterations=2, log_prob_reduction="sum", epsilon=0.2)


def test_the_papers_clip_range_serves_whole_samples(tmp_path):
    assert config(tmp_path, num_iterations=2).epsilon == 1e-4


def test_the_base_is_evaluated_where_anything_is(tmp_path):
    assert config(tmp_path, eval_strategy="steps", eval_steps=2.0).eval_on_start
    assert not config(tmp_path).eval_on_start
    assert not config(tmp_path, eval_strategy="steps", eval_steps=2.0, eval_on_start=False).eval_on_start


def test_presets_set_nothing_that_has_no_effect():
    import yaml

    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml"):
        kind = PRESETS[path.name.split("_")[0].removesuffix(".yaml")]
        assert not set(yaml.safe_load(path.read_text())) & set(TABLES[kind]), path.name
