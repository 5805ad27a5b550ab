"""What a component of each kind must be: one abstract class a file."""
