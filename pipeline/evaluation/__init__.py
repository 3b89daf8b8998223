"""Metrics, confidence intervals, plots and the report."""
