"""Folding a context into an adapter."""
