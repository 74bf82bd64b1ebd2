"""Malicious clients: the vectors that they send instead of their experience, and the app that sends them."""
