"""The configuration of a job: composed from files and overrides, checked, built."""
