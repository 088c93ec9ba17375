"""File formats, read and written: AMASS, BVH, ASF/AMC."""
