"""What a run writes: whole files, `metrics.jsonl`, the W&B mirror, where its results come from."""
