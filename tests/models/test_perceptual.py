"""The perceptual model: what its score depends on, what it must not depend on, and what it refuses."""

import copy
import shutil
from pathlib import Path

import jaxtyping
import peft
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from motion_grpo import Motion
from motion_grpo.body import PARENTS, cpf_of
from motion_grpo.geometry.rotations import wxyz_to_matrix, yaw_rotation
from motion_grpo.models import MotionPerceptualModel, loading, perceptual, perceptual_inputs
from tests.tiny import head_trajectory, moving_motion

FRAMES = 10
EXAMPLES = Path(__file__).parents[2] / "examples"


def tiny_model(**changes) -> MotionPerceptualModel:
    """Random weights that make scores differ, and statistics that make all inputs count."""
    model = MotionPerceptualModel(**{"d_latent": 16, "num_blocks": 2, "num_heads": 2, "mlp_ratio": 2} | changes)
    joints, head = inputs(24, rows=4)
    model.set_input_statistics(joints, head, torch.ones(4, 24, dtype=torch.bool))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name:
                value += 0.3 * torch.randn(value.shape)
        # Scores that differ, away from where the sigmoid is flat.
        logits = model.eval()(joints, head).score.logit()
        model.decoder[-1].weight /= logits.std()
        model.decoder[-1].bias.sub_(logits.mean()).div_(logits.std())
    return model


def motion_inputs(frames: int, rows: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Local rotations, joints, and the pose of a head that walks elsewhere."""
    motions = [moving_motion(frames, seed) for seed in range(rows)]
    trajectory = head_trajectory(frames * rows)
    R, p = (x.unflatten(0, (rows, frames)) for x in (trajectory.R_world_cpf, trajectory.p_world_cpf))
    return torch.stack([m.body_rotmats for m in motions]), torch.stack([m.joints[:, :22] for m in motions]), R, p


def inputs(frames: int = FRAMES, rows: int = 3) -> tuple[Tensor, Tensor]:
    return perceptual_inputs(*motion_inputs(frames, rows))


def mask_of(*real: int, frames: int) -> Tensor:
    return torch.arange(frames) < torch.tensor(real)[:, None]


@pytest.fixture
def as_users_run_it():
    """Switches the shape checker off, which would else be the one to refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# ---- inputs


def test_inputs_are_local_rotations_and_world_positions_of_the_body_joints() -> None:
    body_rotmats, joints, R, p = motion_inputs(FRAMES)
    body, head = perceptual_inputs(body_rotmats, joints, R, p)
    assert_close(wxyz_to_matrix(body[..., :4]), body_rotmats, rtol=0.0, atol=1e-5)
    assert torch.equal(body[..., 4:], joints[..., 1:, :])
    assert_close(wxyz_to_matrix(head[..., :4]), R, rtol=0.0, atol=1e-5)
    assert torch.equal(head[..., 4:], p)


# ---- invariance


@pytest.mark.parametrize("frames_per_token", [1, 4])
@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(yaw=st.floats(-3.2, 3.2), x=st.floats(-50.0, 50.0), y=st.floats(-50.0, 50.0))
def test_place_and_heading_in_the_world_do_not_matter(frames_per_token: int, yaw: float, x: float, y: float) -> None:
    torch.manual_seed(0)
    model = tiny_model(frames_per_token=frames_per_token)
    body_rotmats, joints, R, p = motion_inputs(FRAMES)
    turn, shift = yaw_rotation(torch.tensor(yaw)), torch.tensor([x, y, 0.0])
    moved = perceptual_inputs(body_rotmats, joints @ turn.mT + shift, turn @ R, p @ turn.mT + shift)
    scores = model(*perceptual_inputs(body_rotmats, joints, R, p)).score
    assert scores.std() > 0.05
    # float32 knows places 50 m away to 4 micrometres.
    assert_close(model(*moved).score, scores, rtol=0.0, atol=5e-3)


def test_height_over_the_floor_matters() -> None:
    model = tiny_model()
    body_rotmats, joints, R, p = motion_inputs(FRAMES)
    up = torch.tensor([0.0, 0.0, 0.3])
    scores = model(*perceptual_inputs(body_rotmats, joints, R, p)).score
    raised = model(*perceptual_inputs(body_rotmats, joints + up, R, p + up)).score
    assert ((raised - scores).abs() > 1e-3).all()


@pytest.mark.parametrize("frames_per_token", [1, 4])
def test_floor_clearance_is_the_lowest_joint_of_the_frame(frames_per_token: int) -> None:
    model = tiny_model(frames_per_token=frames_per_token, floor_clearance=True)
    joints, head = inputs()
    plain = MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, frames_per_token=frames_per_token)
    tokens, last = model._tokens(joints), torch.full((3,), FRAMES - 1)
    size = frames_per_token + 1
    ours, _ = model._features(joints, head, tokens, last)
    theirs, _ = plain._features(joints, head, tokens, last)
    ours, theirs = ours.unflatten(-1, (size, 11)), theirs.unflatten(-1, (size, 10))
    assert_close(ours[..., :10], theirs)
    # The cosine transform is orthonormal: its transpose takes it back.
    back = torch.einsum("kf,btjk->btjf", perceptual._cosine_transform(size), ours[..., 10])
    lowest = joints[..., 6].amin(-1)[:, tokens.clamp(max=FRAMES - 1)]
    assert_close(back, lowest[:, :, None].expand_as(back), rtol=0.0, atol=1e-5)
    assert MotionPerceptualModel(d_latent=4, num_heads=1).config.floor_clearance is False


def test_the_sign_of_a_quaternion_does_not_matter() -> None:
    model = tiny_model()
    joints, head = inputs()
    scores = model(joints, head).score
    assert_close(model(_flipped(joints), _flipped(head)).score, scores, rtol=0.0, atol=1e-5)


def _flipped(poses: Tensor) -> Tensor:
    return torch.cat([-poses[..., :4], poses[..., 4:]], dim=-1)


@pytest.mark.parametrize("frames_per_token", [1, 4])
def test_every_frame_and_joint_and_the_head_matter(frames_per_token: int) -> None:
    model = tiny_model(frames_per_token=frames_per_token)
    joints, head = (x.requires_grad_() for x in inputs())
    model(joints, head).score.sum().backward()
    assert (joints.grad.abs().amax(-1) > 0).all()
    assert (head.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("frames_per_token", [1, 4])
def test_the_order_of_time_matters(frames_per_token: int) -> None:
    model = tiny_model(frames_per_token=frames_per_token)
    joints, head = inputs()
    assert ((model(joints.flip(1), head.flip(1)).score - model(joints, head).score).abs() > 1e-4).any()


def test_rows_do_not_depend_on_their_batch() -> None:
    model = tiny_model(frames_per_token=4)
    joints, head = inputs()
    scores = model(joints, head).score
    for row in range(3):
        assert_close(model(joints[row : row + 1], head[row : row + 1]).score[0], scores[row], rtol=0.0, atol=1e-5)


# ---- padding


@pytest.mark.parametrize(("frames_per_token", "real"), [(1, (10, 7, 1)), (4, (12, 8, 7)), (4, (9, 5, 1))])
def test_padding_does_not_matter(frames_per_token: int, real: tuple[int, ...]) -> None:
    model = tiny_model(frames_per_token=frames_per_token)
    longest = max(real)
    joints, head = inputs(longest)
    alone = torch.cat([model(joints[i : i + 1, :n], head[i : i + 1, :n]).score for i, n in enumerate(real)])
    for amount in (0, 1, 5, 8):
        mask = mask_of(*real, frames=longest + amount)
        for content in (0.0, 7.0, float("nan")):
            padded = []
            for values in (joints, head):
                longer = torch.cat([values, values[:, -1:].expand(-1, amount, *values.shape[2:])], 1)
                longer[~mask] = content
                padded.append(longer)
            assert_close(model(*padded, mask).score, alone, rtol=0.0, atol=1e-5, msg=f"{amount} frames of {content}")


def test_a_whole_mask_is_none() -> None:
    model = tiny_model(frames_per_token=4)
    joints, head = inputs()
    assert_close(
        model(joints, head, mask_of(10, 10, 10, frames=10)).score, model(joints, head).score, rtol=0.0, atol=1e-6
    )


def test_one_frame_is_scored() -> None:
    joints, head = inputs()
    assert tiny_model(frames_per_token=4)(joints[:, :1], head[:, :1]).score.isfinite().all()


# ---- scores, precision, ways of running


def test_scores_lie_between_0_and_1() -> None:
    joints, head = inputs()
    for scale in (1, 30):
        model = tiny_model()
        with torch.no_grad():
            model.decoder[-1].weight *= scale
        scores = model(joints, head).score
        assert scores.shape == (3,)
        assert scores.dtype == torch.float32
        assert ((scores >= 0) & (scores <= 1)).all()
    assert ((tiny_model()(joints, head).score - 0.5).abs() < 0.5).all()


def test_statistics_make_inputs_count_alike() -> None:
    model = MotionPerceptualModel(d_latent=16, num_blocks=1, num_heads=2, frames_per_token=3)
    joints, head = inputs(24, rows=4)
    mask = mask_of(24, 24, 24, 5, frames=24)
    # What is padded must not be measured.
    joints[3, 5:, :, 4:] = 1e3
    model.set_input_statistics(joints, head, mask)
    features, head_features = model._features(joints, head, model._tokens(joints), mask.sum(1) - 1)
    for values, mean, std in (
        (features, model.joint_mean, model.joint_std),
        (head_features, model.head_mean, model.head_std),
    ):
        # Whole tokens end before the last frame they look ahead to: 7 of the first rows, 1 of the last.
        measured = torch.cat([values[:3, :7].flatten(0, 1), values[3, :1]])
        assert_close(mean, measured.mean(0), rtol=1e-4, atol=1e-5)
        assert_close(std, measured.std(0).clamp(min=5e-4), rtol=1e-3, atol=1e-5)
    assert model.joint_std.max() < 10


def test_statistics_stay_float32() -> None:
    model = tiny_model()
    mean = model.joint_mean.clone()
    half = model.to(torch.bfloat16)
    assert half.embed_head.weight.dtype == torch.bfloat16
    assert half.joint_mean.dtype == torch.float32
    assert torch.equal(half.joint_mean, mean)


def test_bfloat16_runs() -> None:
    model = tiny_model(frames_per_token=2)
    joints, head = inputs()
    exact = model(joints, head, mask_of(10, 7, 4, frames=10)).score
    rounded = model.to(torch.bfloat16)(joints, head, mask_of(10, 7, 4, frames=10)).score
    assert rounded.dtype == torch.float32
    assert_close(rounded, exact, rtol=0.0, atol=0.15)
    assert not torch.equal(rounded, exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny_model()(joints, head).score.isfinite().all()


def test_gradient_checkpointing_changes_nothing() -> None:
    model = tiny_model(frames_per_token=2).train()
    joints, head = inputs()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        scores = model(joints, head, mask_of(10, 7, 4, frames=10)).score
        scores.square().sum().backward()
        gradients.append([scores.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
    assert model.gradient_checkpointing


def test_dropout_is_for_training_only() -> None:
    model = tiny_model(dropout_p=0.5)
    joints, head = inputs()
    assert torch.equal(model(joints, head).score, model(joints, head).score)
    assert not torch.equal(model.train()(joints, head).score, model(joints, head).score)


def test_adapters_are_all_that_a_tuned_model_changes() -> None:
    model = tiny_model()
    joints, head = inputs()
    before = model(joints, head).score.detach()
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "key_value", "output"]))
    assert_close(model(joints, head).score, before, rtol=0.0, atol=1e-6)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    for _ in range(2):  # the first step leaves the factor that starts at zero
        optimizer.zero_grad()
        model(joints, head).score.sum().backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, weights[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert (model(joints, head).score - before).abs().max() > 1e-4
    model.disable_adapters()
    assert_close(model(joints, head).score, before, rtol=0.0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_is_the_same(as_users_run_it) -> None:
    model = tiny_model(frames_per_token=4)
    joints, head = inputs()
    mask = mask_of(10, 7, 4, frames=10)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        (score,) = compiled(joints, head, mask, return_dict=False)
        assert_close(score, model(joints, head, mask).score, rtol=0.0, atol=1e-5)


# ---- saving


@pytest.mark.parametrize("frames_per_token", [1, 4])
def test_saved_model_is_the_same_model(frames_per_token: int, tmp_path) -> None:
    model = tiny_model(frames_per_token=frames_per_token)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = MotionPerceptualModel.from_pretrained(tmp_path)
    assert not loaded.training
    joints, head = inputs()
    # A copy: kernels round differently at the odd addresses at which the file is mapped into memory.
    assert torch.equal(copy.deepcopy(loaded)(joints, head).score, model(joints, head).score)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_weights_stored_in_half_precision_are_computed_with_in_float32(saved: Path) -> None:
    save_file({name: value.half() for name, value in load_file(saved).items()}, saved, metadata={"format": "pt"})
    loaded = MotionPerceptualModel.from_pretrained(saved.parent)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}


@pytest.fixture
def saved(tmp_path) -> Path:
    tiny_model().save_pretrained(tmp_path)
    return tmp_path / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm.weight": None}, r"lacks 1 weights that its config\.json asks for: norm\.weight"),
        ({"joint_std": None}, r"lacks 1 weights that its config\.json asks for: joint_std"),
        ({"norm.weight": torch.zeros(5)}, r"does not fit its config\.json"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes: dict, message: str, saved: Path) -> None:
    weights = {name: value for name, value in (load_file(saved) | changes).items() if value is not None}
    save_file(weights, saved, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        MotionPerceptualModel.from_pretrained(saved.parent)


def test_pickled_weights_are_never_loaded(saved: Path) -> None:
    with pytest.raises(ValueError, match="use_safetensors=False would load a pickle"):
        MotionPerceptualModel.from_pretrained(saved.parent, use_safetensors=False)
    saved.rename(saved.with_suffix(".bin"))
    with pytest.raises(OSError, match="safetensors"):
        MotionPerceptualModel.from_pretrained(saved.parent)


def test_shipped_models_go_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "_EMBEDDED", tmp_path)
    model = tiny_model()
    model.save_pretrained(tmp_path / "perceptual")
    joints, head = inputs()
    for loaded in (MotionPerceptualModel.from_pretrained(), MotionPerceptualModel.from_pretrained("perceptual")):
        assert_close(loaded(joints, head).score, model(joints, head).score, rtol=0.0, atol=1e-6)
    with pytest.raises(OSError, match="critic cannot be had from the Hub"):
        MotionPerceptualModel.from_pretrained("critic")


# ---- bad input


def test_width_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match="d_latent 12 must be divisible by twice num_heads 4"):
        MotionPerceptualModel(d_latent=12, num_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda j, h, m: (j[:, :, :20], h, m), r"joints has shape \(3, 10, 20, 7\).*21 joints"),
        (
            lambda j, h, m: (torch.cat([j[:, :, :1], j], 2), h, m),
            r"joints has shape \(3, 10, 22, 7\).*without the root",
        ),
        (lambda j, h, m: (j[..., :6], h, m), r"joints has shape \(3, 10, 21, 6\).*of 7 numbers"),
        (lambda j, h, m: (j, h[:, :9], m), r"head has shape \(3, 9, 7\) beside 3 motions of 10 frames"),
        (lambda j, h, m: (j, h[:2], m), r"head has shape \(2, 10, 7\) beside 3 motions"),
        (lambda j, h, m: (j, h[..., :6], m), r"head has shape \(3, 10, 6\)"),
        (lambda j, h, m: (j, h, m[:, :9]), r"mask has shape \(3, 9\); it must be \(3, 10\)"),
        (lambda j, h, m: (j, h, m & mask_of(10, 0, 4, frames=10)), "Row 1 is all padding"),
        (lambda j, h, m: (j, h, ~mask_of(0, 0, 4, frames=10)), "mask of row 2 has a gap"),
        (lambda j, h, m: (j * torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1, 1), h, m), "Row 1 of joints .* unit length"),
        (lambda j, h, m: (j, torch.cat([h[..., :4] * 0.9, h[..., 4:]], -1), m), "Row 0 of head .* unit length"),
        (lambda j, h, m: (torch.where(torch.arange(7) == 2, float("nan"), j), h, m), "Row 0 of joints"),
    ],
)
def test_bad_input_is_refused(change, message: str, as_users_run_it) -> None:
    joints, head = inputs()
    with pytest.raises(ValueError, match=message):
        tiny_model()(*change(joints, head, mask_of(10, 10, 10, frames=10)))


def depth_first(joint: int = 0) -> list[int]:
    """The order of many motion file formats."""
    children = [child for child in range(1, 22) if PARENTS[child] == joint]
    return [joint] * (joint > 0) + [below for child in children for below in depth_first(child)]


@pytest.mark.parametrize("order", [range(21), range(21, 0, -1), depth_first()], ids=["with root", "reversed", "tree"])
def test_joints_in_another_order_are_refused(order) -> None:
    motion = Motion.load(EXAMPLES / "brisk_walk.npz")
    R, p = cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))
    joints, head = perceptual_inputs(motion.body_rotmats, motion.joints[:, :22], R, p)
    assert tiny_model()(joints[None], head[None]).score.isfinite().all()
    joints[..., 4:] = motion.joints[:, list(order)]
    with pytest.raises(ValueError, match=r"Row 0 of joints has bones .* SMPL-H's 1-21, in its order"):
        tiny_model()(joints[None], head[None])


def test_what_lies_in_padding_is_not_checked() -> None:
    joints, head = inputs()
    joints[1, 6:], head[1, 6:] = 0.0, 0.0
    assert tiny_model()(joints, head, mask_of(10, 6, 10, frames=10)).score.isfinite().all()
