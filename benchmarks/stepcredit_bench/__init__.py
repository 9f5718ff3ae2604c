"""Speed and memory beside others' ways, measured side by side on this machine."""
