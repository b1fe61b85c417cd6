"""Frames of video files, cameras and network streams, for classifying. Needs the extra `video`."""
