"""From trajectories to experience vectors."""
