"""What a visdom server shows of a run, while it goes on or when it is over."""

from .dashboard import Dashboard

__all__ = ["Dashboard"]
