"""RegNet image classifiers."""
