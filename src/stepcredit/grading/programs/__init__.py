"""Programs under test: shut in, away from their tests, and from everything else."""
