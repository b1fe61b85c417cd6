"""A converted model as a file: its graph, its metadata, and the engine that runs it."""
