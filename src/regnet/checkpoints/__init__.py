"""Weights files of every known layout, read safely."""
