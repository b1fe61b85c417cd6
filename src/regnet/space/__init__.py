"""The design space: spaces of networks, samples of them, and what they cost."""
