"""What both sides need of the machine that they run on: durable files, secret files, and child processes."""
