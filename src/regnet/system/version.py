"""The version of this package; converted models record it."""

TOOL_VERSION = "0.5.0"
