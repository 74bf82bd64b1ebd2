"""A deployed device: its folder, settings and runtime, and the commands to join a fleet, check, run and wipe it."""
