"""Attacks on our own privacy: what they must not find is found out here first."""
