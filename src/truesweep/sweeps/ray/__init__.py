"""A Ray cluster as the place where a sweep's jobs run.

Nothing is imported here: each worker of the cluster that looks after a job imports this package.
"""
