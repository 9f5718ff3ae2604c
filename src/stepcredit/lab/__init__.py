"""The embedded world: a small task in which the wrong step and the exact value of a prefix are known."""
