"""File formats, read and written: AMASS, SMPL-X npz, BVH, ASF/AMC, tables."""
