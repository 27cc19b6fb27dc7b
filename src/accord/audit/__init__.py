"""Reward hacking: what it looks like in text."""
