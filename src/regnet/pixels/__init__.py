"""From the bytes of a photo to the exact pixels that a network takes."""
