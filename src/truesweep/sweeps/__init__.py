"""Many jobs from one question: planned, run, pruned, resumed and summed up."""
