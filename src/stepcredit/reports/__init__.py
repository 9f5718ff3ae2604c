"""Self-contained HTML reports, rendered from result files and plain data; nothing is computed anew."""
