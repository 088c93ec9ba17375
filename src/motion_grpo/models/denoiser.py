"""The denoising transformer: EgoAllo's network, with a few options that make a small one train well."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin, get_parameter_dtype
from diffusers.utils import BaseOutput
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from motion_grpo.models.conditioning import (
    PARAMETERIZATIONS,
    WristPoses,
    body_features,
    condition_dim,
    head_features,
    wrist_features,
)
from motion_grpo.models.egoallo import read_egoallo, without_rotary
from motion_grpo.models.loading import MotionModelMixin, fetches_weights
from motion_grpo.models.transformer import TransformerBlock, sinusoids
from motion_grpo.motion import StateLayout
from motion_grpo.trajectory.head_poses import HeadPoses

_ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}
_CHOICES = {
    "activation": tuple(_ACTIVATIONS),
    "positional_encoding": ("rope", "transformer"),
    "noise_conditioning": ("token", "film"),
    "xattn_mode": ("kv_from_cond_q_from_x", "kv_from_x_q_from_cond"),
    "cond_param": PARAMETERIZATIONS,
    "rotation_representation": ("matrix", "6d"),
}


@dataclass
class EgoMotionDenoiserOutput(BaseOutput):
    """What the denoiser predicts."""

    sample: Float[Tensor, "batch frames d_state"]
    """The clean state x0, a row a frame as ``state_layout`` says: betas (standard deviations of body shape), joint
    rotations relative to their parents (columns of matrices, no unit, not projected) and contacts (0 to 1)."""


class EgoMotionDenoiser(MotionModelMixin, ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Predicts the clean motion state from a noisy one and the head trajectory (EgoAllo, Sec. 3.3; MotionGRPO, Eq. 3).

    With the default configuration this is EgoAllo's network to the letter (50.45 M parameters), and its state-dict
    names are EgoAllo's. An encoder reads the head features, a decoder the noisy state; both are post-norm transformers.

    Args:
        max_t: noise levels, counted 1..max_t.
        fourier_enc_freqs: octaves of the encoding of the head features.
        d_latent: width.
        d_feedforward: hidden width of the feed-forward layers.
        d_noise_emb: width of the noise-level embedding.
        num_heads: attention heads.
        num_encoder_layers: blocks over the head features.
        num_decoder_layers: blocks over the state.
        dropout_p: dropout of attention and feed-forward, in training only.
        activation: ``gelu`` or ``relu``.
        positional_encoding: ``rope`` (rotary) or ``transformer`` (added sinusoids).
        noise_conditioning: ``token`` prepends the noise embedding to both sequences, ``film`` scales and shifts the
            feed-forward layers.
        xattn_mode: which side of the cross-attention asks.
        include_canonicalized_cpf_rotation_in_cond: see :func:`~motion_grpo.models.conditioning.head_features`.
        include_hands: whether the state holds 15 joints a hand.
        cond_param: parameterization of the head features.
        include_hand_positions_cond: whether wrist positions relative to the CPF are part of the features (EgoAllo's
            way: all-zero where unknown).
        include_wrists_cond: whether the features hold the poses of both wrists relative to the CPF, each with a flag
            that says whether it is visible in this frame.
        include_body_cond: whether the features hold the wearer's size, with a flag that says whether it is known.
        frames_per_token: frames that share a token of either sequence; 1 is EgoAllo's.
        rotation_representation: ``matrix`` is EgoAllo's state; ``6d`` holds the first two columns of each rotation.
        noise_in_encoder: False keeps the noise level out of the encoder (needs ``film``), so that it runs once a
            trajectory and not once a sampling step.
        mask_self_attention: whether padded frames are hidden from self-attention too. EgoAllo hides them from
            cross-attention only, and its weights were trained that way. Padding that shares a token with a real frame
            is hidden by neither.
        normalize_cond: standardize the head features by statistics stored with the weights
            (:meth:`set_condition_statistics`); steps between frames are millimeters and would else drown.
        output_low_pass: standard deviation, in frames, of a Gaussian that the predicted state is smoothed by over time,
            as part of the network; 0 is none. Of recorded joint rotations 1% of the
            power lies above 4 Hz (measured on open_mocap_smplh), so what it takes away is mostly jitter.

    Raises:
        ValueError: options that contradict each other or are unknown.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock"]  # noqa: RUF012  (diffusers reads this name)
    _repeated_blocks = ["TransformerBlock"]  # noqa: RUF012  (likewise)

    @register_to_config
    def __init__(
        self,
        max_t: int = 1000,
        fourier_enc_freqs: int = 3,
        d_latent: int = 512,
        d_feedforward: int = 2048,
        d_noise_emb: int = 1024,
        num_heads: int = 4,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dropout_p: float = 0.0,
        activation: Literal["gelu", "relu"] = "gelu",
        positional_encoding: Literal["rope", "transformer"] = "rope",
        noise_conditioning: Literal["token", "film"] = "token",
        xattn_mode: Literal["kv_from_cond_q_from_x", "kv_from_x_q_from_cond"] = "kv_from_cond_q_from_x",
        include_canonicalized_cpf_rotation_in_cond: bool = True,
        include_hands: bool = True,
        cond_param: str = "ours",
        include_hand_positions_cond: bool = False,
        include_wrists_cond: bool = False,
        include_body_cond: bool = False,
        frames_per_token: int = 1,
        rotation_representation: Literal["matrix", "6d"] = "matrix",
        noise_in_encoder: bool = True,
        mask_self_attention: bool = False,
        normalize_cond: bool = False,
        output_low_pass: float = 0.0,
    ) -> None:
        super().__init__()
        for option, choices in _CHOICES.items():
            if self.config[option] not in choices:
                raise ValueError(f"{option} is {self.config[option]!r}; it must be one of {', '.join(choices)}.")
        if noise_conditioning == "token" and not noise_in_encoder:
            raise ValueError("noise_in_encoder=False needs noise_conditioning='film'; 'token' reaches both sequences.")
        if d_latent % (2 * num_heads):
            raise ValueError(f"d_latent {d_latent} must be divisible by twice num_heads {num_heads}.")

        d_cond = condition_dim(
            cond_param,
            include_canonicalized_cpf_rotation_in_cond,
            include_hand_positions_cond,
            fourier_enc_freqs,
            wrists=include_wrists_cond,
            body_size=include_body_cond,
        )
        act = _ACTIVATIONS[activation]
        self.encoders = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        for name, size in self.state_layout.sizes.items():
            size = size * frames_per_token
            self.encoders[name] = nn.Sequential(
                nn.Linear(size, d_latent), act(), nn.Linear(d_latent, d_latent), act(), nn.Linear(d_latent, d_latent)
            )
            self.decoders[name] = nn.Sequential(
                nn.Linear(d_latent, d_latent),
                nn.LayerNorm(d_latent),
                act(),
                nn.Linear(d_latent, d_latent),
                act(),
                nn.Linear(d_latent, size),
            )
            if name.endswith("rotmats"):
                # Training starts at the rest pose and not at random rotations.
                identity = torch.eye(3)[:, :2] if rotation_representation == "6d" else torch.eye(3)
                self.decoders[name][-1].bias.data.copy_(identity.flatten().repeat(size // identity.numel()))
        self.latent_from_cond = nn.Linear(d_cond * frames_per_token, d_latent)
        if normalize_cond:
            self._register_statistic("cond_mean", torch.zeros(d_cond))
            self._register_statistic("cond_std", torch.ones(d_cond))

        self.noise_emb = nn.Embedding(max_t, d_noise_emb)
        # Neighboring levels start alike, so that every row profits from what its neighbors learn first.
        self.noise_emb.weight.data.copy_(sinusoids(max_t, d_noise_emb))
        self.noise_emb_token_proj = (
            nn.Linear(d_noise_emb, d_latent, bias=False) if noise_conditioning == "token" else None
        )

        def block(cross_attention: bool, film: bool) -> TransformerBlock:
            return TransformerBlock(
                d_latent=d_latent,
                d_feedforward=d_feedforward,
                num_heads=num_heads,
                dropout_p=dropout_p,
                activation=act(),
                d_film=d_noise_emb if film else None,
                cross_attention=cross_attention,
                rotary=positional_encoding == "rope",
                queries_from_condition=xattn_mode == "kv_from_x_q_from_cond",
                mask_self_attention=mask_self_attention,
            )

        film = noise_conditioning == "film"
        self.encoder_layers = nn.ModuleList(block(False, film and noise_in_encoder) for _ in range(num_encoder_layers))
        self.decoder_layers = nn.ModuleList(block(True, film) for _ in range(num_decoder_layers))
        self.gradient_checkpointing = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; the statistics are float32 whatever that is."""
        return get_parameter_dtype(self.decoders)

    def _save(self, folder: Path, options: dict[str, Any]) -> None:
        if self._hf_peft_config_loaded:
            raise ValueError(
                "The denoiser has an adapter, which its weights would be saved without: save_lora_adapter(folder) "
                "saves it alone; fuse_lora() and then unload_lora_weights() make it part of the weights."
            )
        super()._save(folder, options)

    @classmethod
    def from_egoallo(cls, folder: str | os.PathLike) -> "EgoMotionDenoiser":
        """EgoAllo's network with its released weights; saves and reloads as any diffusers model.

        Args:
            folder: with ``model_config.yaml`` and ``checkpoints_*/model.safetensors`` (the newest is taken), or one
                such ``checkpoints_*`` folder.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: weights that are missing, unexpected, of a wrong shape, damaged, or a pickle; settings that are
                not plain YAML or that the network does not know.
        """
        config_path, settings, path, weights = read_egoallo(folder)
        try:
            model = cls(**settings)
        except TypeError as error:
            raise ValueError(f"{config_path} has a setting that EgoAllo's network does not know: {error}") from error
        weights = without_rotary(weights, model.config.d_latent // model.config.num_heads, path)
        expected = model.state_dict()
        missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
        if missing or extra:
            raise ValueError(f"{path} does not fit its configuration: missing {missing[:3]}, unexpected {extra[:3]}.")
        for name, value in weights.items():
            if value.shape != expected[name].shape:
                raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, not {tuple(expected[name].shape)}.")
        model.load_state_dict(weights)
        return model.eval()

    @property
    def state_layout(self) -> StateLayout:
        """How a frame of the state is laid out."""
        return StateLayout(self.config.rotation_representation, self.config.include_hands)

    def condition(
        self,
        head: HeadPoses,
        hand_positions: Float[Tensor, "*batch frames 6"] | None = None,
        *,
        wrists: WristPoses | None = None,
        body_measures: Float[Tensor, "*batch frames 3"] | None = None,
        body_known: Bool[Tensor, "*batch frames"] | None = None,
    ) -> Float[Tensor, "*batch frames d_cond"]:
        """Features of what is known about the wearer, as this network wants them; what it does not read is ignored.

        Args:
            head: CPF poses above a floor at z = 0.
            hand_positions: wrists relative to the CPF, meters; zeros when None and the network reads them.
            wrists: wrist poses for ``include_wrists_cond``; neither is visible when None.
            body_measures: the wearer's size (:meth:`~motion_grpo.body.Skeleton.measures`), meters, for
                ``include_body_cond``; unknown when None.
            body_known: frames in which ``body_measures`` counts; all when None.
        """
        config, p = self.config, head.p_world_cpf
        if config.include_hand_positions_cond and hand_positions is None:
            hand_positions = p.new_zeros(*p.shape[:-1], 6)
        octaves = config.fourier_enc_freqs
        features = [
            head_features(
                head,
                config.cond_param,
                canonical_rotation=config.include_canonicalized_cpf_rotation_in_cond,
                hand_positions=hand_positions if config.include_hand_positions_cond else None,
                octaves=octaves,
            )
        ]
        if config.include_wrists_cond:
            features.append(wrist_features(WristPoses.unseen(head) if wrists is None else wrists, octaves))
        if config.include_body_cond:
            if body_measures is None:
                body_measures, body_known = torch.zeros_like(p), torch.zeros_like(p[..., 0], dtype=torch.bool)
            elif body_known is None:
                body_known = torch.ones_like(p[..., 0], dtype=torch.bool)
            features.append(body_features(body_measures, body_known))
        return torch.cat(features, dim=-1)

    @torch.no_grad()
    def set_condition_statistics(self, cond: Float[Tensor, "*batch d_cond"]) -> None:
        """Stores mean and deviation of each feature over a sample of training frames (``normalize_cond`` only)."""
        flat = cond.flatten(0, -2).double()
        self.cond_mean.copy_(flat.mean(0))
        # Cosines of millimetre steps hardly move: the floor keeps rounding errors from being blown up.
        self.cond_std.copy_(flat.std(0).clamp(min=1e-3))

    @fetches_weights
    def encode(
        self,
        cond: Float[Tensor, "batch frames d_cond"],
        noise_level: Int[Tensor, " batch"] | None = None,
        mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch tokens d_latent"]:
        """Encodes head features; with ``noise_in_encoder=False`` the result serves every sampling step.

        Args:
            cond: what :meth:`condition` returned.
            noise_level: 1..max_t; needed where the encoder sees the noise.
            mask: True for frames that exist.
        """
        if self.config.normalize_cond:
            cond = (cond - self.cond_mean) / self.cond_std
        x = self.latent_from_cond(self._patch(cond.to(self.dtype)))
        noise = None if noise_level is None else self.noise_emb(noise_level - 1)
        x, token_mask = self._with_position(x, noise, self._token_mask(mask))
        for layer in self.encoder_layers:
            x = self._run(layer, x, token_mask, noise if self.config.noise_in_encoder else None, None)
        return x

    def forward(
        self,
        sample: Float[Tensor, "batch frames d_state"],
        timestep: Int[Tensor, " batch"],
        cond: Float[Tensor, "batch frames d_cond"],
        mask: Bool[Tensor, "batch frames"] | None = None,
        encoded: Float[Tensor, "batch tokens d_latent"] | None = None,
        return_dict: bool = True,
    ) -> EgoMotionDenoiserOutput | tuple[Float[Tensor, "batch frames d_state"]]:
        """The predicted clean state; its rotations are not projected.

        Args:
            sample: noisy state, packed as :attr:`state_layout` says.
            timestep: noise level of each row, 1..max_t (one more than diffusers' timestep of the same noise).
            cond: head features from :meth:`condition`.
            mask: True for frames that exist; None when all do.
            encoded: result of :meth:`encode` for the same ``cond``, to save computing it again.
            return_dict: False returns the output's fields as a tuple.
        """
        frames = sample.shape[1]
        if encoded is None:
            encoded = self.encode(cond, timestep, mask)
        noise = self.noise_emb(timestep - 1)
        parts = sample.to(self.dtype).split(list(self.state_layout.sizes.values()), dim=-1)
        x = sum(encoder(self._patch(part)) for encoder, part in zip(self.encoders.values(), parts, strict=True))
        x, token_mask = self._with_position(x, noise, self._token_mask(mask))
        for layer in self.decoder_layers:
            x = self._run(layer, x, token_mask, noise, encoded)
        if self.noise_emb_token_proj is not None:
            x = x[:, 1:]
        tokens = [decoder(x).unflatten(-1, (self.config.frames_per_token, -1)) for decoder in self.decoders.values()]
        output = torch.cat([y.flatten(1, 2)[:, :frames] for y in tokens], dim=-1)
        if self.config.output_low_pass:
            output = _low_pass(output, self.config.output_low_pass, mask)
        return EgoMotionDenoiserOutput(output) if return_dict else (output,)

    def _run(self, layer: TransformerBlock, *inputs: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(layer, *inputs)
        return layer(*inputs)

    def _patch(self, x: Float[Tensor, "batch frames d"]) -> Float[Tensor, "batch tokens d_token"]:
        """Frames of a token side by side; the last frame is repeated where a token is not full."""
        size = self.config.frames_per_token
        missing = -x.shape[1] % size
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1)], dim=1)
        return x.unflatten(1, (-1, size)).flatten(2)

    def _token_mask(self, mask: Bool[Tensor, "batch frames"] | None) -> Bool[Tensor, "batch tokens"] | None:
        """A token exists when any of its frames does."""
        if mask is None:
            return None
        size = self.config.frames_per_token
        return F.pad(mask, (0, -mask.shape[1] % size)).unflatten(1, (-1, size)).any(-1)

    def _with_position(
        self, x: Tensor, noise: Tensor | None, mask: Tensor | None
    ) -> tuple[Float[Tensor, "batch tokens d_latent"], Bool[Tensor, "batch tokens"] | None]:
        """Adds sinusoids where they are asked for, and the noise token in front (it takes rotary position 0)."""
        if self.config.positional_encoding == "transformer":
            x = x + sinusoids(x.shape[1], self.config.d_latent).to(x)
        if self.noise_emb_token_proj is not None:
            x = torch.cat([self.noise_emb_token_proj(noise)[:, None], x], dim=1)
            mask = None if mask is None else F.pad(mask, (1, 0), value=True)
        return x, mask


def _low_pass(
    x: Float[Tensor, "batch frames d"], sigma: float, mask: Bool[Tensor, "batch frames"] | None
) -> Float[Tensor, "batch frames d"]:
    """Gaussian mean over the frames that exist, ``sigma`` frames wide."""
    place = torch.arange(x.shape[1], device=x.device)
    kernel = torch.exp(-0.5 * ((place[:, None] - place) / sigma).square()).to(x.dtype)
    if mask is not None:
        kernel = kernel * mask[:, None, :]
    # A padded frame far from every real one would divide 0 by 0: it keeps its own value.
    kernel = kernel + 1e-6 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return (kernel / kernel.sum(-1, keepdim=True)) @ x
