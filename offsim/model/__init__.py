"""What is offloaded: the experts of a model, their shape, and the one hook through which they run."""
