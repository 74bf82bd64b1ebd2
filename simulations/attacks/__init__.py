"""Clients that lie: what they send instead of their experience, and apps that send it."""
