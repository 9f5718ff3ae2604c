"""The loop on recorded GSM8K solutions, trained on outcomes only."""
