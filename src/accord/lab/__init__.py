"""The lab: over-optimisation where the true reward is known, from exact distributions to small language models."""
