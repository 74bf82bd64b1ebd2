"""Federated logic: whom to ask, and what to make of what arrives."""
