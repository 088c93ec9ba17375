"""Joints as tables, one row a frame, for spreadsheets and data frames."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from motion_grpo.body import BODY_JOINT_NAMES, JOINT_NAMES
from motion_grpo.files import whole_file
from motion_grpo.motion import Motion


def joints_table(motion: Motion) -> pa.Table:
    """``time`` (seconds), ``JOINT_x``, ``_y``, ``_z`` (meters, z up, floor at z = 0) and ``JOINT_contact`` (0 to 1).

    Fingers have columns where the hands are known; contacts are those of the body joints, which excludes the pelvis.
    """
    motion = motion.above_floor()
    columns = {"time": motion.timestamps.numpy()}
    for joint, name in enumerate(JOINT_NAMES[: motion.num_known_joints]):
        columns |= {f"{name}_{axis}": motion.joints[:, joint, i].numpy() for i, axis in enumerate("xyz")}
    columns |= {f"{name}_contact": motion.contacts[:, i].numpy() for i, name in enumerate(BODY_JOINT_NAMES)}
    return pa.table(columns)


def write_csv(motion: Motion, path: Path) -> None:
    """Writes :func:`joints_table` as comma-separated text."""
    with whole_file(path) as temporary:
        pyarrow.csv.write_csv(joints_table(motion), temporary)


def write_parquet(motion: Motion, path: Path) -> None:
    """Writes :func:`joints_table` as Parquet."""
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(joints_table(motion), temporary)
