"""Findings as records, text, plots and pages."""
