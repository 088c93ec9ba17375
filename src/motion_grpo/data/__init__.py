"""Recorded motion: one schema, importers' runner, readers, contact labels, augmentation and windows."""

from motion_grpo.extras import extra

with extra("data"):
    from motion_grpo.data.clips import (
        Clip,
        label_contacts,
        mirror,
        mirror_contacts,
        resample,
        with_contacts,
    )
    from motion_grpo.data.dataset_card import SourceFacts, write_dataset_card
    from motion_grpo.data.head_clip import HeadClip, row_to_trajectory
    from motion_grpo.data.importing import ClipError, Dropped, Importer, ImportReport, Job, run_import
    from motion_grpo.data.loading import load_clips, load_motions
    from motion_grpo.data.mocap_pack import MocapPackImporter, is_mocap_pack, read_mocap_pack
    from motion_grpo.data.schema import FEATURES, SCHEMA_VERSION, clip_to_row, row_to_clip
    from motion_grpo.data.windows import MotionWindows, StreamedWindows, balancing_weights, collate_windows

__all__ = [
    "FEATURES", "SCHEMA_VERSION", "Clip", "ClipError", "Dropped", "HeadClip", "ImportReport", "Importer", "Job",
    "MocapPackImporter", "MotionWindows", "SourceFacts", "StreamedWindows", "balancing_weights", "clip_to_row",
    "collate_windows", "is_mocap_pack", "label_contacts", "load_clips", "load_motions", "mirror",
    "mirror_contacts", "read_mocap_pack", "resample", "row_to_clip", "row_to_trajectory", "run_import",
    "with_contacts", "write_dataset_card",
]  # fmt: skip
