"""How fast models are on a machine, measured in turns."""
