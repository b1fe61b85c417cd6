"""A model's accuracy on labelled images."""
