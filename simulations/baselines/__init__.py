"""What federated learning of experience is compared with: same games, seeds, warm start and evaluation, other loops.

None of these is private, and none is part of what a device or a server installs for a fleet.
"""
