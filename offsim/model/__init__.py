"""What is offloaded: the experts of a model, their shape, and the hook through which they run."""
