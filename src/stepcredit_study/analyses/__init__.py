"""What single claims compute beyond the shared measurements: operations, values, over-optimisation."""
