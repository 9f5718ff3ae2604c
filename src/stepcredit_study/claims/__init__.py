"""One file per claim, or per group of claims that need the same files; read each from top to bottom."""
