from motion_grpo.schedulers.ego_motion_sde import EgoMotionSDEScheduler  # noqa: F401  (pip install motion-grpo)
