"""What a network knows of photos: embeddings in files, and the nearest photos."""
