"""CMU's subjects in the second part of the pack (``cmu2``): size, floor and feet, and what is done in a take."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """What has to be known of a person to retarget all takes alike."""

    split: str
    betas0: float
    """Size, the median over the takes."""
    floor: float
    """z of the ground after retargeting, meters: the median over the takes, less those on equipment."""
    feet: Mapping[str, tuple[float, float, float]]
    """Measured while planted, as :attr:`~motion_grpo.retargeting.rigs.Rig.references`."""


SUBJECTS: dict[str, Subject] = {
    "05": Subject("train", 0.17, -0.0347, {
        "L_ankle": (-14.36, 19.75, -18.43), "L_foot": (-9.14, 20.6, -19.75),
        "R_ankle": (-7.42, -11.22, 11.98), "R_foot": (14.48, -16.06, 14.52),
    }),
    "07": Subject("test", 0.71, -0.0389, {
        "L_ankle": (-3.58, 22.59, -23.61), "L_foot": (-5.63, 22.18, -22.79),
        "R_ankle": (-3.82, -19.82, 26.25), "R_foot": (-14.62, -18.43, 24.09),
    }),
    "09": Subject("train", 1.7, -0.0208, {
        "L_ankle": (-0.18, 21.3, -17.28), "L_foot": (-2.29, 21.41, -18.6),
        "R_ankle": (0.97, -16.64, 14.83), "R_foot": (-0.17, -16.42, 14.93),
    }),
    "14": Subject("train", 1.28, -0.0072, {
        "L_ankle": (-0.37, 22.43, -21.16), "L_foot": (-10.32, 20.65, -19.27),
        "R_ankle": (-0.59, -18.25, 19.99), "R_foot": (8.83, -19.7, 21.05),
    }),
    "16": Subject("train", 1.33, -0.0054, {
        "L_ankle": (-0.64, 22.4, -21.21), "L_foot": (0.69, 22.59, -21.44),
        "R_ankle": (2.13, -18.92, 20.98), "R_foot": (5.42, -19.66, 22.04),
    }),
    "29": Subject("train", 1.47, -0.0143, {
        "L_ankle": (-3.07, 20.81, -15.89), "L_foot": (-17.19, 17.62, -13.04),
        "R_ankle": (-1.68, -16.55, 14.05), "R_foot": (-12.69, -13.83, 12.12),
    }),
    "49": Subject("train", 1.01, -0.0178, {
        "L_ankle": (-2.62, 23.32, -25.74), "L_foot": (8.33, 24.56, -27.76),
        "R_ankle": (10.95, -17.2, 14.93), "R_foot": (7.36, -16.58, 15.95),
    }),
    "127": Subject("train", 1.55, -0.033, {
        "L_ankle": (-0.55, 22.51, -21.56), "L_foot": (4.84, 23.42, -22.94),
        "R_ankle": (2.71, -17, 16.12), "R_foot": (-9.39, -13.5, 12.93),
    }),
    "131": Subject("val", 0.15, 0.0059, {
        "L_ankle": (-3.75, 21.88, -21.21), "L_foot": (14.72, 24.41, -24.25),
        "R_ankle": (-0.7, -15.9, 11.16), "R_foot": (-1.23, -15.19, 13.62),
    }),
    "135": Subject("train", 1.11, -0.0344, {
        "L_ankle": (2.16, 20.56, -12.83), "L_foot": (-3.42, 18.07, -10.77),
        "R_ankle": (3.53, -16.29, 10.66), "R_foot": (-1.58, -13.82, 9.49),
    }),
}  # fmt: skip

_TAKES = {
    "acrobatics": "05_06 49_06-08 49_21 127_23-24",
    "charade": "29_03-05 29_08-09 29_11 29_14-17 29_19-25",
    "climb": "14_21-23 14_33-35",
    "crouch": "127_29-32 127_37-38 131_05-06",
    "dance": "05_02-05 05_07-15 05_17-20 49_09-17 49_22",
    "exercise": "14_06 14_14 14_20 49_18-20",
    "gesture": "14_17-19 14_24-26 29_02 29_07",
    "jump": "16_01-07 16_09-10 49_02-05 127_21-22 127_25-28 131_03-04 131_07-08",
    "martial": "14_02 135_02-07 135_09-11",
    "object": "14_04-05 14_07-13 14_15 14_37",
    "range_of_motion": "127_02 135_08",
    "run": "09_01-11 16_08 16_35-46 16_48-57 127_03-20 127_33-36",
    "sit": "14_27-32 14_36",
    "walk": "05_01 07_01-02 07_04-11 09_12 16_11-34 16_47 16_58 29_01 49_01 131_01-02 131_09-14",
}
ON_EQUIPMENT = ("sit", "climb", "acrobatics")
"""Contents in which feet stand on no floor, so that it is held closer to the subject's."""
LEFT_OUT = {"07_12": "no toes in the take", "127_01": "frozen"}


def _expand(takes: str) -> list[str]:
    """``05_02-04`` is ``05_02``, ``05_03``, ``05_04``."""
    names = []
    for run in takes.split():
        subject, numbers = run.split("_")
        first, _, last = numbers.partition("-")
        names += [f"{subject}_{number:02d}" for number in range(int(first), int(last or first) + 1)]
    return names


CONTENTS: dict[str, str] = {take: content for content, takes in _TAKES.items() for take in _expand(takes)}
"""What is done in a take, from CMU's own description."""
