"""What a bounded error does to accuracy."""

from offsim.accuracy.tasks import Accuracy, accuracy

__all__ = ["Accuracy", "accuracy"]
