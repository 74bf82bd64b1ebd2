"""Probes of general ability: perplexity and instruction following of a version, compared with the base model."""
