"""The command line: one file a verb, imported on use."""
