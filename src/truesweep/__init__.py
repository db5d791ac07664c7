"""Train and sweep transformer language models with numbers that can be trusted."""

__version__ = "0.1.0"
