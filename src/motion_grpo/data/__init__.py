"""Recorded motion: one schema, importers' runner, readers, contact labels, augmentation and windows."""

from motion_grpo.extras import extra

with extra("data"):
    from motion_grpo.data.clips import Clip, ClipError, mirror, mirror_contacts, mirrored_clip, resample
    from motion_grpo.data.head_clip import HeadClip, row_to_trajectory
    from motion_grpo.data.head_windows import HeadWindows
    from motion_grpo.data.importers.base import Importer, Job
    from motion_grpo.data.importers.mocap_pack import MocapPackImporter
    from motion_grpo.data.importers.runner import Dropped, ImportReport, run_import
    from motion_grpo.data.loading import load_clips, load_motions
    from motion_grpo.data.mocap_pack import is_mocap_pack, read_mocap_pack
    from motion_grpo.data.schema import FEATURES, SCHEMA_VERSION, clip_to_row, row_to_clip
    from motion_grpo.data.windows import MotionWindows, StreamedWindows, balancing_weights, collate_windows

__all__ = [
    "FEATURES", "SCHEMA_VERSION", "Clip", "ClipError", "Dropped", "HeadClip", "HeadWindows", "ImportReport", "Importer",
    "Job",
    "MocapPackImporter", "MotionWindows", "StreamedWindows", "balancing_weights", "clip_to_row", "collate_windows",
    "is_mocap_pack", "load_clips", "load_motions", "mirror", "mirror_contacts", "mirrored_clip", "read_mocap_pack",
    "resample", "row_to_clip", "row_to_trajectory", "run_import",
]  # fmt: skip
