"""One trainer for every reward model."""
