from motion_grpo import EgoMotionPipeline  # noqa: F401  (pip install motion-grpo)
