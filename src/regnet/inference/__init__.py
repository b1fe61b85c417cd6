"""From images to predictions, whatever engine runs the model."""
