"""From other people's skeletons to SMPL-H: rigs, retargeting, cutting of takes."""
