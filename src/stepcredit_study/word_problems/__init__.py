"""Word problems: a real language model writes, errs, and is judged."""
