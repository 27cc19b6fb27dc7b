"""Configuration: standard-library dataclasses, one file a method."""
