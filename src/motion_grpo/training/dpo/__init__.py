"""Direct preference optimization: pairs of motions, the objective, and the trainer."""
