"""Options of the commands that sample: how, and with which guidance."""

from dataclasses import replace
from typing import Annotated

import typer

from motion_grpo.guidance import GuidanceConfig

Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps; the checkpoint's own by default.")]
Eta = Annotated[float | None, typer.Option(min=0, help="Stochasticity; the checkpoint's own by default.")]
Temperature = Annotated[
    float,
    typer.Option(min=0.01, help="Scale of the starting noise; 1.5 with --eta 0 --steps 10 for samples that differ."),
]
GuidanceInner = Annotated[
    bool, typer.Option("--guidance-inner", help="With --guidance: also between the steps of sampling.")
]
GuidanceFloor = Annotated[
    bool, typer.Option("--guidance-floor", help="With --guidance: also keep the body out of the floor.")
]

PENETRATION = 30.0
"""Weight of ``--guidance-floor``: on validation clips it takes 98% of the penetration, and nothing else gets worse."""


def guidance_settings(mode: str | None, inner: bool, floor: bool) -> GuidanceConfig | str | None:
    """What ``--guidance``, ``--guidance-inner`` and ``--guidance-floor`` ask of a pipeline; None is the pipeline's own.

    Raises:
        ValueError: an unknown mode, or one of the others without it.
    """
    config = GuidanceConfig.of(mode)
    if config is None and (inner or floor):
        option = "--guidance-inner" if inner else "--guidance-floor"
        raise ValueError(f"{option} says how --guidance goes: give that too, such as --guidance no_hands.")
    if config is None:
        return mode
    return replace(config, inner=inner, penetration=PENETRATION if floor else config.penetration)
