"""One file a command: options in, files in, files out, and a result to print."""
