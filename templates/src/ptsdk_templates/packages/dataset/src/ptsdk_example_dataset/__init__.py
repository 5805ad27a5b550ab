"""{question, answer}, loss on the answer and its end, for ptsdk."""
