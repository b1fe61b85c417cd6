"""What is wrong with a data set, found before a training is wasted on it."""
