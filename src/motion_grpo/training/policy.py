"""The denoiser as the policy that is post-trained: what is wrapped for distribution, adapted, saved and resumed."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import safetensors.torch
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from motion_grpo.extras import extra
from motion_grpo.inference.rollout import predict_clean
from motion_grpo.models import EgoMotionDenoiser

_LORA_LAYERS = (
    "sattn_qkv_proj", "sattn_out_proj", "xattn_kv_proj", "xattn_q_proj", "xattn_out_proj", "mlp0", "mlp1",
)  # fmt: skip


class MotionPolicy(nn.Module):
    """A denoiser whose forward pass is one decision: the clean state that a group of noisy ones should head for.

    Rollout and update both go through :meth:`forward`, or the ratio of their densities would not be 1. Dropout is off
    in both: the denoiser stays in eval mode when the policy is put into training mode.

    Args:
        denoiser: the network; its weights are trained in place.
        lora_r: rank of a LoRA adapter on the attention and MLP layers of the transformer blocks; 0 trains the weights
            themselves.
        lora_alpha: scale of the adapter, over the rank.
        trainable: see :func:`trainable_names`; for all weights, without an adapter.
        project: whether rotations of the clean state are made proper ones; else the state stays as the network puts it
            out.
    """

    _no_split_modules = ["TransformerBlock"]  # noqa: RUF012  (accelerate reads this name)

    def __init__(
        self,
        denoiser: EgoMotionDenoiser,
        lora_r: int = 0,
        lora_alpha: int = 32,
        *,
        trainable: Sequence[str] = ("*",),
        project: bool = True,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser.eval()
        self.project = project
        self.has_adapter = lora_r > 0
        if self.has_adapter:
            with extra("lora"):
                from peft import LoraConfig
            denoiser.add_adapter(LoraConfig(r=lora_r, lora_alpha=lora_alpha, target_modules=list(_LORA_LAYERS)))
        else:
            chosen = trainable_names([name for name, _ in denoiser.named_parameters()], trainable)
            for name, parameter in denoiser.named_parameters():
                parameter.requires_grad_(name in chosen)
        self.train()

    def train(self, mode: bool = True) -> "MotionPolicy":
        """Training mode for the policy, never for the denoiser in it."""
        super().train(mode)
        self.denoiser.eval()
        return self

    def forward(
        self,
        latents: Float[Tensor, "samples frames d_state"],
        level: int | Int64[Tensor, " rows"],
        cond: Float[Tensor, "rows frames d_cond"],
        mask: Bool[Tensor, "rows frames"],
        rows: Int64[Tensor, " samples"],
    ) -> Float[Tensor, "samples frames d_state"]:
        """The predicted clean state, float32.

        Args:
            latents: x_t.
            level: its noise level; of each row's samples, where they differ.
            cond: head features; a row is encoded once for all samples of a group.
            mask: True for frames that exist.
            rows: row of each sample.
        """
        levels = level if isinstance(level, Tensor) else torch.full((len(cond),), level, device=cond.device)
        encoded = self.denoiser.encode(cond, levels, mask)
        return predict_clean(
            self.denoiser,
            self.denoiser.state_layout,
            latents,
            levels[rows],
            cond[rows],
            mask[rows],
            encoded[rows],
            project=self.project,
        )

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The policy as it was before training, while the adapter is switched off."""
        self.denoiser.disable_adapters()
        try:
            yield
        finally:
            self.denoiser.enable_adapters()

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those that the optimizer moves."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def merged(self, state_dict: dict[str, Tensor] | None = None) -> EgoMotionDenoiser:
        """The denoiser itself, or a copy of it with the adapter added to its weights.

        Args:
            state_dict: the policy's, where its parameters are divided among processes.
        """
        if state_dict is not None:
            denoiser = EgoMotionDenoiser.from_config(self.denoiser.config)
            denoiser.load_state_dict({name.removeprefix("denoiser."): value for name, value in state_dict.items()})
            return denoiser.eval()
        if not self.has_adapter:
            return self.denoiser
        denoiser = copy.deepcopy(self.denoiser)
        denoiser.fuse_lora()
        denoiser.unload_lora()
        return denoiser

    def save(self, folder: str | Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the merged denoiser (:meth:`merged`) as diffusers does, and the adapter beside it."""
        self.merged(state_dict).save_pretrained(folder)
        self.save_adapter(folder)

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapter, if there is one, as diffusers does: ``EgoMotionPipeline.load_lora_weights`` reads it."""
        if self.has_adapter:
            self.denoiser.save_lora_adapter(folder)

    def load(self, folder: str | Path) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: weights of another architecture.
            OSError: no such file.
        """
        if self.has_adapter:
            path = Path(folder) / LORA_WEIGHT_NAME_SAFE
            # peft leaves the adapter's name out of the names of its weights.
            ours = {n.replace(".default.", "."): p for n, p in self.denoiser.named_parameters() if p.requires_grad}
            stored = safetensors.torch.load_file(path)
            if wrong := [k for k, p in ours.items() if k not in stored or stored[k].shape != p.shape]:
                raise ValueError(
                    f"{path} is the adapter of another network or rank: {wrong[0]} does not fit. Resume with the "
                    "pipeline and the lora_r that the run was started with."
                )
            with torch.no_grad():
                for name, parameter in ours.items():
                    parameter.copy_(stored[name])
            return
        stored = EgoMotionDenoiser.from_pretrained(folder)
        ours, theirs = dict(self.denoiser.config), dict(stored.config)
        differs = [key for key in ours if not key.startswith("_") and ours[key] != theirs.get(key)]
        if differs:
            key = differs[0]
            raise ValueError(
                f"{folder} is a checkpoint of another architecture: its {key} is {theirs.get(key)!r}, the policy's is "
                f"{ours[key]!r}. Resume with the pipeline that the run was started from."
            )
        self.denoiser.load_state_dict(stored.state_dict())


def trainable_names(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The weights that are trained: those that a pattern matches, less those that one with a ``!`` before it does.

    Args:
        names: of all weights, as in the state dict.
        patterns: as file names have them; later ones go over earlier ones. ``*`` is all weights.

    Raises:
        ValueError: a pattern that matches nothing, or nothing that is left.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern.removeprefix("!"))}
        if not matched:
            raise ValueError(
                f"trainable has {pattern!r}, which matches no weight of the network; they are named like "
                f"{', '.join(names[:: max(1, len(names) // 4)][:4])}."
            )
        chosen = chosen - matched if pattern.startswith("!") else chosen | matched
    if not chosen:
        raise ValueError(f"trainable is {list(patterns)}, which leaves no weight to train; begin with '*'.")
    return chosen
