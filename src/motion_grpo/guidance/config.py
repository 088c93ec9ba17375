"""Settings of guidance: which residuals, how heavy, how many steps."""

from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, Literal, get_args

GuidanceMode = Literal["no_hands", "aria_wrist_only", "aria_hamer", "hamer_wrist", "hamer_reproj2"]
MODES: tuple[str, ...] = get_args(GuidanceMode)
OFF = "off"


@dataclass(frozen=True)
class GuidanceConfig:
    """Test-time optimization of a motion (EgoAllo, Sec. 3.4; its code's weights, which multiply the residuals).

    Raises:
        ValueError: an unknown mode, a phase without steps, or a negative weight.
    """

    mode: GuidanceMode = "no_hands"
    """``no_hands``: feet that stand do not slide. ``aria_wrist_only``: and wrists are where they were seen.
    ``aria_hamer``: and fingers are HaMeR's. ``hamer_wrist``: wrists and fingers are HaMeR's. ``hamer_reproj2``: and
    after sampling its key points project to where they were seen."""
    inner: bool = False
    """Also between the steps of sampling, so that the rest of the body follows. Where hands are fitted it matters."""
    post: bool = True
    """After sampling, over the whole sequence."""
    inner_iterations: int = 5
    """A step of sampling; each starts from what the last one changed."""
    post_iterations: int = 20
    damping: float = 1.0
    """The solver's first. EgoAllo's is 0.1, from which five steps get less far."""
    min_confidence: float = 0.7
    """Of a wrist: observations that are not surer count as none."""

    prior_rotation: float = 1.0
    """Per radian; so are the next three."""
    change_smoothness: float = 10.0
    pose_smoothness: float = 1.0
    velocity_smoothness: float = 5.0
    prior_position: float = 5.0
    """Per meter."""
    skating: float = 30.0
    """Per meter."""
    aria_wrist_position: float = 50.0
    """Per meter, times the confidence."""
    aria_wrist_rotation: float = 10.0
    """Per radian, times the confidence."""
    hamer_wrist_position: float = 20.0
    hamer_wrist_rotation: float = 5.0
    finger_rotation: float = 5.0
    """Per radian; so are the next two."""
    finger_prior: float = 0.1
    finger_smoothness: float = 1.0
    reprojection: float = 1.0
    """Per unit of the image at a distance of one focal length."""
    penetration: float = 0.0
    """Per meter below the ground, the floor or a terrain; not EgoAllo's. 30 lifts feet out of the floor."""

    def __post_init__(self) -> None:
        _check_mode(self.mode)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_iterations") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} is {value!r}; give a whole number of at least 1.")
            if field.type is float and not (isinstance(value, Real) and 0 <= value < float("inf")):
                raise ValueError(f"{field.name} is {value!r}; give a number that is not negative.")

    def __str__(self) -> str:
        """The mode, its phases, and what differs from the defaults."""
        parts = [f"inner {self.inner_iterations}"] * self.inner + [f"post {self.post_iterations}"] * self.post
        named = ("mode", "inner", "post", "inner_iterations", "post_iterations")
        changed = [f for f in fields(self) if f.name not in named and getattr(self, f.name) != f.default]
        return f"{self.mode} ({', '.join(parts + [f'{f.name} {getattr(self, f.name):g}' for f in changed])})"

    @property
    def uses_hands(self) -> bool:
        """Whether it needs to know where the wrists were."""
        return self.mode != "no_hands"

    @property
    def uses_hamer(self) -> bool:
        """Whether it needs HaMeR's detections, and fits fingers."""
        return "hamer" in self.mode

    @property
    def wrists_from_hamer(self) -> bool:
        """Whether HaMeR says where the wrists are, and not the device."""
        return self.mode.startswith("hamer")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def of(guidance: "GuidanceConfig | str | dict[str, Any] | None") -> "GuidanceConfig | None":
        """From what a pipeline takes: itself, a mode, the plain values of one; None and ``off`` are none.

        Raises:
            ValueError: an unknown mode or setting.
        """
        if guidance is None or guidance == OFF:
            return None
        if isinstance(guidance, GuidanceConfig):
            return guidance
        if isinstance(guidance, str):
            guidance = {"mode": guidance}
        if not isinstance(guidance, dict):
            raise ValueError(f"guidance is a {type(guidance).__name__}; give a mode or a GuidanceConfig.")
        if unknown := sorted(guidance.keys() - {field.name for field in fields(GuidanceConfig)}):
            raise ValueError(f"guidance has the unknown settings {', '.join(unknown)}; see GuidanceConfig.")
        _check_mode(guidance.get("mode", GuidanceConfig.mode))
        return GuidanceConfig(**guidance)


def _check_mode(mode: object) -> None:
    if mode not in MODES:
        raise ValueError(f"The guidance mode is {mode!r}; choose one of {', '.join((OFF, *MODES))}.")
