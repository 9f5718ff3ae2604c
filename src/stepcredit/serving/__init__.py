"""A reward model behind HTTP: shared batches for many clients, and a page to look at a solution."""
