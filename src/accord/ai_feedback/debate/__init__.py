"""Scalable oversight: a judge who has not seen the evidence, and debaters who have."""
