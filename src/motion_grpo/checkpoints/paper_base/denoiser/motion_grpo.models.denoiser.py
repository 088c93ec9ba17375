from motion_grpo.models.denoiser import EgoMotionDenoiser  # noqa: F401  (pip install motion-grpo)
