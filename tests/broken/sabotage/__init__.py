"""Components that are each wrong in one way, and the one test of the kit that has to catch each."""
