"""Settings that the trainers inherit: which of them would do nothing here, and mappings that come as text.

transformers' and TRL's configurations have about 190 fields, many of them about language models. A setting that has no
effect is refused by name, lest somebody believes that it had one.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import yaml
from transformers import TrainingArguments

_LANGUAGE = "it is about language models"
_OWN_LOOP = "evaluation recovers whole motions in a loop of its own"
_ONE_CLIP = "evaluation recovers one clip after another"
_OWN_ORDER = "the order of the windows is a function of seed and epoch"
_GENERATION = "samples are drawn by num_sampling_steps and eta"
_AGGREGATION = "aggregation says how rewards become advantages"
_LOSS = "the loss is Eq. 8's, shaped by credit, log_prob_reduction and step_weights"
_REFERENCE = "the reference of beta is the base and stays"

WITHOUT_EFFECT: dict[str, str] = {
    "activation_checkpointing_kwargs": "the network checkpoints its blocks in one way",
    "average_tokens_across_devices": _LANGUAGE,
    "batch_eval_metrics": _OWN_LOOP,
    "bf16_full_eval": _OWN_LOOP,
    "do_predict": "motions are recovered by EgoMotionPipeline",
    "do_train": "calling train() trains",
    "eval_accumulation_steps": _OWN_LOOP,
    "eval_do_concat_batches": _OWN_LOOP,
    "eval_use_gather_object": _OWN_LOOP,
    "fp16_full_eval": _OWN_LOOP,
    "gradient_checkpointing_kwargs": "the network checkpoints its blocks in one way",
    "include_for_metrics": _OWN_LOOP,
    "include_num_input_tokens_seen": _LANGUAGE,
    "label_names": _OWN_LOOP,
    "label_smoothing_factor": "motions have no labels",
    "length_column_name": "windows have one length",
    "liger_kernel_config": _LANGUAGE,
    "neftune_noise_alpha": _LANGUAGE,
    "prediction_loss_only": _OWN_LOOP,
    "remove_unused_columns": "windows are no arguments of the network and must all stay",
    "use_cache": _LANGUAGE,
    "use_liger_kernel": _LANGUAGE,
}
"""Settings of transformers that no trainer reads, and the reason."""

WITHOUT_EFFECT_DENOISING = WITHOUT_EFFECT | {"per_device_eval_batch_size": _ONE_CLIP}
WITHOUT_EFFECT_PERCEPTUAL = WITHOUT_EFFECT | dict.fromkeys(("data_seed", "train_sampling_strategy"), _OWN_ORDER)
WITHOUT_EFFECT_POLICY = WITHOUT_EFFECT_DENOISING | dict.fromkeys(("data_seed", "train_sampling_strategy"), _OWN_ORDER)
WITHOUT_EFFECT_GRPO = (
    WITHOUT_EFFECT_POLICY
    | {"torch_empty_cache_steps": "an update frees what it needs no more", "shuffle_dataset": _OWN_ORDER}
    | dict.fromkeys(("scale_rewards", "multi_objective_aggregation"), _AGGREGATION)
    | dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _REFERENCE)
    | dict.fromkeys(
        (
            "delta", "importance_sampling_level", "loss_type", "off_policy_mask_threshold", "sapo_temperature_neg",
            "sapo_temperature_pos", "top_entropy_quantile", "use_bias_correction_kl", "vespo_k_neg", "vespo_k_pos",
            "vespo_lambda_neg", "vespo_lambda_pos",
        ),
        _LOSS,
    )
    | dict.fromkeys(
        (
            "generation_kwargs", "min_p", "repetition_penalty", "temperature", "top_k", "top_p",
            "transformers_continuous_batching_config", "use_transformers_continuous_batching", "use_transformers_paged",
            "use_vllm", "vllm_enable_sleep_mode", "vllm_gpu_memory_utilization", "vllm_group_port",
            "vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min",
            "vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_max_model_length",
            "vllm_mode", "vllm_model_impl", "vllm_server_base_url", "vllm_server_host", "vllm_server_port",
            "vllm_server_timeout", "vllm_structured_outputs_regex", "vllm_tensor_parallel_size",
        ),
        _GENERATION,
    )
    | dict.fromkeys(
        (
            "cache_implementation", "cast_lm_head_to_fp32", "chat_template_kwargs", "ds3_gather_for_generation",
            "entropy_coef", "entropy_coef_delta", "entropy_coef_max", "entropy_coef_min", "entropy_target",
            "log_completions", "log_completions_hub_repo", "log_multimodal", "log_unique_prompts",
            "mask_truncated_completions", "max_completion_length", "max_tool_calling_iterations", "model_init_kwargs",
            "num_completions_to_print", "pad_to_multiple_of", "router_aux_loss_coef", "trust_remote_code",
            "use_adaptive_entropy",
        ),
        _LANGUAGE,
    )
    | {"disable_dropout": "dropout is always off, or the first ratio would not be 1", "num_generations_eval": _ONE_CLIP}
)  # fmt: skip
"""Those of transformers and TRL that the GRPO trainer does not read."""


def refuse_without_effect(args: TrainingArguments, without_effect: Mapping[str, str]) -> None:
    """Refuses inherited settings that were changed and do nothing here.

    Args:
        args: settings, as they were given.
        without_effect: reason by name.

    Raises:
        ValueError: one of them is not at its default.
    """
    given = vars(args)
    for field in fields(args):
        if (reason := without_effect.get(field.name)) is None or field.name not in given:
            continue
        default = field.default if field.default is not MISSING else field.default_factory()
        value = False if given[field.name] == "no" else given[field.name]  # as command lines are read
        # None asks for nothing, and is what TRL makes of one of its defaults.
        if value is not None and value != (False if default == "no" else default):
            raise ValueError(
                f"{field.name} is {given[field.name]!r}, but has no effect here: {reason}; leave {field.name} out."
            )


def mapping(name: str, given: Any) -> dict[str, Any]:
    """A setting that is a mapping, which a command line gives as text: ``'{"rotation": 2.0}'`` in JSON or YAML.

    Raises:
        ValueError: it is none.
    """
    value = given
    if isinstance(given, str):
        try:
            value = yaml.safe_load(given)
        except yaml.YAMLError:
            value = None
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {given!r}; it must be a mapping, as in '{{\"name\": 1.0}}'.")
    return value
