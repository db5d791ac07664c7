"""Runs: their directories, what these hold, and where they are found."""
