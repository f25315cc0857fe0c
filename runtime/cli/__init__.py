"""The command line of the vehicle's commands."""
