"""The transformer block of EgoAllo's network: post-norm, rotary attention, FiLM inside the feed-forward layer."""

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Sine and cosine position codes, interleaved (Vaswani et al. 2017, Sec. 3.5)."""
    angle = torch.arange(length).float()[:, None] * torch.exp(torch.arange(0, dim, 2).float() * (-math.log(1e4) / dim))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]


def rotary_frequencies(head_dim: int, device: torch.device | None = None) -> Float[Tensor, " half"]:
    """Angle per position of each pair of channels, theta 10000 (Su et al. 2021, Eq. 15)."""
    return 1e4 ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)


def rotary_table(tokens: int, head_dim: int, device: torch.device) -> Float[Tensor, "tokens half 2"]:
    """Cosine and sine of the angle of each position and pair of channels."""
    angle = torch.arange(tokens, device=device).float()[:, None] * rotary_frequencies(head_dim, device)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


@lru_cache(maxsize=64)
def _kept_rotary_table(tokens: int, head_dim: int, device: torch.device) -> Float[Tensor, "tokens half 2"]:
    """:func:`rotary_table`, made once: every block of the network asks for the same."""
    with torch.inference_mode(False), torch.no_grad():
        return rotary_table(tokens, head_dim, device)


def rotate(x: Float[Tensor, "batch heads tokens d"]) -> Float[Tensor, "batch heads tokens d"]:
    """Rotary position embedding on neighboring pairs of channels."""
    place = x.shape[-2], x.shape[-1], x.device
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # compilers fuse reals, and leave complex numbers alone
        (real, imaginary), (cosine, sine) = pairs.unbind(-1), rotary_table(*place).unbind(-1)
        turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)
    else:  # as complex numbers: a fifth of the time that strided reals take on a CPU
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(_kept_rotary_table(*place)))
    return turned.flatten(-2).to(x.dtype)


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, feed-forward, each followed by residual and LayerNorm.

    Parameter names are those of EgoAllo's weights.
    """

    def __init__(
        self,
        d_latent: int,
        d_feedforward: int,
        num_heads: int,
        dropout_p: float,
        activation: nn.Module,
        d_film: int | None,
        cross_attention: bool,
        rotary: bool,
        queries_from_condition: bool,
        mask_self_attention: bool,
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout_p = num_heads, dropout_p
        self.rotary, self.queries_from_condition = rotary, queries_from_condition
        self.mask_self_attention, self.cross_attention = mask_self_attention, cross_attention
        self.sattn_qkv_proj = nn.Linear(d_latent, 3 * d_latent, bias=False)
        self.sattn_out_proj = nn.Linear(d_latent, d_latent, bias=False)
        self.layernorm1 = nn.LayerNorm(d_latent)
        self.layernorm2 = nn.LayerNorm(d_latent)
        if cross_attention:
            self.xattn_kv_proj = nn.Linear(d_latent, 2 * d_latent, bias=False)
            self.xattn_q_proj = nn.Linear(d_latent, d_latent, bias=False)
            self.xattn_layernorm = nn.LayerNorm(d_latent)
            self.xattn_out_proj = nn.Linear(d_latent, d_latent, bias=False)
        self.mlp0 = nn.Linear(d_latent, d_feedforward)
        self.mlp1 = nn.Linear(d_feedforward, d_latent)
        self.mlp_film_cond_proj = None
        if d_film is not None:
            self.mlp_film_cond_proj = nn.Linear(d_film, 2 * d_feedforward, bias=False)
            nn.init.zeros_(self.mlp_film_cond_proj.weight)
        self.activation = activation
        self.dropout = nn.Dropout(dropout_p)

    def forward(
        self,
        x: Float[Tensor, "batch tokens d"],
        mask: Bool[Tensor, "batch tokens"] | None,
        noise: Float[Tensor, "batch d_film"] | None,
        cond: Float[Tensor, "batch tokens d"] | None,
    ) -> Float[Tensor, "batch tokens d"]:
        """One block.

        Args:
            x: sequence.
            mask: True for tokens that exist, of either sequence (they are equally long); keys only, since a row
                without any key would be NaN.
            noise: noise-level embedding for FiLM.
            cond: encoded head features for the cross-attention.
        """
        q, k, v = self.sattn_qkv_proj(x).chunk(3, dim=-1)
        x = self.layernorm1(
            x + self.dropout(self.sattn_out_proj(self._attend(q, k, v, mask if self.mask_self_attention else None)))
        )
        if self.cross_attention:
            source, target = (x, cond) if self.queries_from_condition else (cond, x)
            k, v = self.xattn_kv_proj(source).chunk(2, dim=-1)
            x = self.xattn_layernorm(x + self.xattn_out_proj(self._attend(self.xattn_q_proj(target), k, v, mask)))
        h = self.activation(self.mlp0(x))
        if self.mlp_film_cond_proj is not None:
            scale, shift = self.mlp_film_cond_proj(noise)[:, None].chunk(2, dim=-1)
            h = F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
        return self.layernorm2(x + self.mlp1(self.dropout(h)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        if self.rotary:
            q, k = rotate(q), rotate(k)
        mask = None if mask is None else mask[:, None, None, :]
        dropout_p = self.dropout_p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p).transpose(1, 2).flatten(2)
