"""What runs on the other side of `accord.rewards.sandbox`: a supervisor, and under it the answer and its tests, each in a process of its own.

Standard library only: these processes start without site packages, in a few hundredths of a second.
"""
