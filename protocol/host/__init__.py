"""Operating-system services for both sides: durable files, secret files, and child processes."""
