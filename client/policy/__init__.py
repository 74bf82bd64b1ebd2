"""Policies: whatever says how likely each admissible command is."""
