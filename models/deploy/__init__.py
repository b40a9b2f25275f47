"""What is done to a network that from now on only predicts."""

from .inference import for_inference

__all__ = ["for_inference"]
