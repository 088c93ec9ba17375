"""GRPO for the diffusion policy: trainer, config, objective, exploration, conditions."""
