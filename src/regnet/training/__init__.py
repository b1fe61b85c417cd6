"""Training: recipes as values, one readable loop, checkpoints that a killed run goes on from."""
