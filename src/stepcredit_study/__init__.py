"""One paper's claims (arXiv:2412.01981), each measured anew beside the published numbers."""
