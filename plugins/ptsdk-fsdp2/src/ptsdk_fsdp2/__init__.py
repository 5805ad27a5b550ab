"""Fully sharded training for ptsdk, by torch's ``fully_shard``."""
