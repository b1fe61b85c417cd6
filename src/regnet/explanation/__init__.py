"""Where in a photo a model sees a class."""
