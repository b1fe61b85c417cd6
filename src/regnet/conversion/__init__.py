"""From weights to a converted model, with the proof that it computes the same."""
