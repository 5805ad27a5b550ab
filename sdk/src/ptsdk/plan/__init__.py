"""What a job will need of memory, told before it runs: the step itself, on tensors without data."""
