"""One file per command: options in, files in, files out, and a result to print."""
