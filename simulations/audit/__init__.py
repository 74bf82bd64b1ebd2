"""Privacy audit: attacks on the protections of a scenario, and a privacy card with their results."""
