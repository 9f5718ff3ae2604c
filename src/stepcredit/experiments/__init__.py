"""The demo, and runs that reproduce claims; each is a thin script over the pipelines."""
