"""Baselines: other training methods on the same games, seeds, warm start and evaluation.

None of them is private. They are for simulations only.
"""
