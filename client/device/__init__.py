"""How a person puts a device into a fleet: joining it, checking it, running it, and taking it out again."""
