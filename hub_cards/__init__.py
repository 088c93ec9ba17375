"""Templates of model and data-set cards; installed as ``motion_grpo.hub_cards``."""
