"""Measurements that stand in the documentation; each script says how it is run."""
