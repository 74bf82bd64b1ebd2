"""Federated logic: cohort sampling, message exchange with devices, and aggregation of experience vectors."""
