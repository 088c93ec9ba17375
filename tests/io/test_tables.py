from dataclasses import replace

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from motion_grpo.body import BODY_JOINT_NAMES, JOINT_NAMES
from tests.io.test_bvh import with_hands
from tests.tiny import moving_motion


@pytest.mark.parametrize(("suffix", "read"), [(".csv", pd.read_csv), (".parquet", pd.read_parquet)])
@pytest.mark.parametrize("hands", [False, True])
def test_tables_hold_joints_over_the_floor_and_contacts(suffix, read, hands, tmp_path) -> None:
    motion = replace(moving_motion(4), floor_height=0.25)
    motion = with_hands(motion) if hands else motion
    table = read(motion.save(tmp_path / f"walk{suffix}"))
    names = JOINT_NAMES if hands else JOINT_NAMES[:22]
    assert len(table.columns) == 1 + 3 * len(names) + 21
    assert_allclose(table["time"], motion.timestamps)
    joints = table[[f"{name}_{axis}" for name in names for axis in "xyz"]].to_numpy().reshape(4, -1, 3)
    assert_allclose(joints, motion.joints[:, : len(names)].numpy() - (0, 0, 0.25), atol=1e-6)
    assert_allclose(table[[f"{name}_contact" for name in BODY_JOINT_NAMES]], motion.contacts, atol=1e-6)
