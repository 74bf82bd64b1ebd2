"""Differential privacy at the level of clients: what is clipped, how much noise is added where, and what it costs."""
