"""Recorded motion: readers, contact labels, augmentation and windows."""

from motion_grpo.data.clips import Clip, label_contacts, leg_length, mirror, mirror_contacts, resample, with_contacts
from motion_grpo.data.mocap_pack import read_mocap_pack
from motion_grpo.data.windows import MotionWindows

__all__ = [
    "Clip", "MotionWindows", "label_contacts", "leg_length", "mirror", "mirror_contacts", "read_mocap_pack", "resample",
    "with_contacts",
]  # fmt: skip
