"""What diffusers expects of every network: outputs with names, offloading, dtypes; for both networks alike."""

import copy
import logging
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from diffusers import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion_grpo.models import (
    EgoMotionDenoiser,
    EgoMotionDenoiserOutput,
    MotionPerceptualModel,
    MotionPerceptualModelOutput,
    perceptual_inputs,
)
from tests.tiny import head_poses, moving_motion, tiny_denoiser, tiny_perceptual_model

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Case(NamedTuple):
    model: ModelMixin
    inputs: tuple[Tensor, ...]
    statistics: tuple[str, ...]

    def output(self, model: ModelMixin) -> Tensor:
        with torch.no_grad():
            return model(*self.inputs, return_dict=False)[0]


def denoiser_case() -> Case:
    model = tiny_denoiser(normalize_cond=True, frames_per_token=4)
    cond = 3 + torch.randn(2, 10, model.cond_mean.numel())
    model.set_condition_statistics(cond)
    inputs = (torch.randn(2, 10, model.state_layout.dim), torch.tensor([3, 700]), cond)
    return Case(model, inputs, ("cond_mean", "cond_std"))


def perceptual_case() -> Case:
    model, motion, head = tiny_perceptual_model().eval(), moving_motion(12), head_poses(12)
    inputs = perceptual_inputs(motion.body_rotmats, motion.joints[:, :22], head[:, :3, :3], head[:, :3, 3])
    inputs = tuple(x[None] for x in inputs)
    model.set_input_statistics(*inputs, torch.ones(1, 12, dtype=torch.bool))
    return Case(model, inputs, ("joint_mean", "joint_std", "head_mean", "head_std"))


@pytest.fixture(params=[denoiser_case, perceptual_case], ids=["denoiser", "perceptual"])
def case(request) -> Case:
    torch.manual_seed(0)
    return request.param()


# ---- outputs


def test_outputs_have_names() -> None:
    """``output[0]`` is the whole field, not its first row."""
    fields = {
        denoiser_case: (EgoMotionDenoiserOutput, "sample"),
        perceptual_case: (MotionPerceptualModelOutput, "score"),
    }
    for build, (kind, field) in fields.items():
        case = build()
        output = case.model(*case.inputs)
        assert type(output) is kind
        assert list(output) == [field]
        assert torch.equal(output[0], output[field])
        assert torch.equal(output[0], case.output(case.model))
        assert len(output[0]) == len(case.inputs[0])


# ---- offloading: what the weights file holds is used, wherever it lies


def test_offloaded_to_disk_is_the_same_network(case: Case, tmp_path) -> None:
    case.model.save_pretrained(tmp_path / "saved")
    loaded = type(case.model).from_pretrained(
        tmp_path / "saved", device_map={"": "disk"}, offload_folder=tmp_path / "weights"
    )
    assert {p.device.type for p in loaded.parameters()} == {"meta"}
    assert torch.equal(case.output(loaded), case.output(case.model))


def test_split_between_memory_and_disk_is_the_same_network(case: Case, tmp_path) -> None:
    case.model.save_pretrained(tmp_path / "saved")
    size = sum(value.numel() * 4 for value in case.model.parameters())
    loaded = type(case.model).from_pretrained(
        tmp_path / "saved", device_map="auto", max_memory={"cpu": size // 2}, offload_folder=tmp_path / "weights"
    )
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.equal(case.output(loaded), case.output(case.model))


@pytest.mark.parametrize("how", ["cpu", "disk"])
def test_offloaded_by_accelerate_is_the_same_network(case: Case, how: str, tmp_path) -> None:
    model = copy.deepcopy(case.model)
    cpu_offload(model, CPU) if how == "cpu" else disk_offload(model, tmp_path, CPU)
    assert model.device.type == "meta"
    assert torch.equal(case.output(model), case.output(case.model))


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_offloaded_by_groups_is_the_same_network(case: Case, level: str, tmp_path) -> None:
    model = copy.deepcopy(case.model)
    groups = {"num_blocks_per_group": 1} if level == "block_level" else {}
    model.enable_group_offload(CPU, offload_type=level, offload_to_disk_path=str(tmp_path), **groups)
    for _ in range(2):
        assert torch.equal(case.output(model), case.output(case.model))


def by_accelerate(model: ModelMixin, folder: str) -> None:
    disk_offload(model, folder, CPU)


def by_groups(model: ModelMixin, folder: str) -> None:
    model.enable_group_offload(CPU, offload_type="leaf_level", offload_to_disk_path=folder)


@pytest.mark.parametrize("offload", [by_accelerate, by_groups])
def test_an_offloaded_denoiser_encodes_on_its_own(offload: Callable, tmp_path) -> None:
    model, (sample, timestep, cond), _ = denoiser_case()
    offloaded = copy.deepcopy(model)
    offload(offloaded, str(tmp_path))
    with torch.no_grad():
        encoded = offloaded.encode(cond)
        assert torch.equal(encoded, model.encode(cond))
        (answer,) = offloaded(sample, timestep, cond, encoded=encoded, return_dict=False)
        assert torch.equal(answer, model(sample, timestep, cond).sample)


def test_made_without_memory_and_filled_later(case: Case) -> None:
    """Whatever is not in the weights has to come out of the configuration."""
    with torch.device("meta"):
        model = type(case.model).from_config(case.model.config)
    model.to_empty(device="cpu").load_state_dict(case.model.state_dict())
    assert torch.equal(case.output(model.eval()), case.output(case.model))


# ---- dtypes


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_asked_for_is_that_of_the_weights_alone(
    case: Case, dtype: torch.dtype, low_cpu_mem_usage: bool, tmp_path
) -> None:
    """Files hold weights in half precision and statistics in float32, as those that ship do."""
    case.model.to(torch.float16).save_pretrained(tmp_path)
    loaded = type(case.model).from_pretrained(tmp_path, dtype=dtype, low_cpu_mem_usage=low_cpu_mem_usage)
    assert loaded.dtype == dtype
    dtypes = {name: value.dtype for name, value in loaded.named_parameters()}
    assert {dtypes.pop(name) for name in case.statistics} == {torch.float32}
    assert set(dtypes.values()) == {dtype}
    for name in case.statistics:
        assert torch.equal(loaded.get_parameter(name), case.model.get_parameter(name))


def test_casting_warns_of_nothing(case: Case, caplog) -> None:
    logger = logging.getLogger("diffusers.models.modeling_utils")
    logger.addHandler(caplog.handler)
    try:
        case.model.to(torch.float16)
        case.model.to("cpu", dtype=torch.float32)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""
    assert logger.level in (logging.NOTSET, logging.WARNING)


def test_statistics_are_not_trained(case: Case) -> None:
    frozen = {name for name, value in case.model.named_parameters() if not value.requires_grad}
    assert frozen == set(case.statistics)


# ---- weights that do not fit


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_a_weight_of_another_shape_is_named_with_both(case: Case, low_cpu_mem_usage: bool, tmp_path) -> None:
    case.model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    name = "noise_emb.weight" if isinstance(case.model, EgoMotionDenoiser) else "norm.weight"
    shape = tuple(weights[name].shape)
    save_file(weights | {name: torch.zeros(5, 3)}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError) as error:
        type(case.model).from_pretrained(tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert str(error.value) == f"{tmp_path} does not fit its config.json: {name} has shape (5, 3), not {shape}."


def test_blocks_can_be_compiled_alone(case: Case) -> None:
    kinds = {type(module).__name__ for module in case.model.modules()}
    assert case.model._repeated_blocks
    assert set(case.model._repeated_blocks) <= kinds
    case.model.compile_repeated_blocks(backend="eager", fullgraph=True)
    assert isinstance(case.model, EgoMotionDenoiser | MotionPerceptualModel)
