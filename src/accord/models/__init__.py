"""Weights: finding and loading models, the adapter stack, the packed forward pass, heads, saving and export."""
