"""INT8 models, certified."""
