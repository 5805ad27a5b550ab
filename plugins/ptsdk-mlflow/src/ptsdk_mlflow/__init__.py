"""Runs of ptsdk in MLflow."""
