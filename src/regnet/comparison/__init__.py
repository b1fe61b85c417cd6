"""Two pipelines on the same photos, stage by stage."""
