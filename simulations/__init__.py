"""Many clients on one machine: engines, scenarios, views, reports and the command line."""
