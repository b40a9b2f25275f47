"""Optical flow behind one interface (provider.FlowProvider)."""

from __future__ import annotations

from .provider import FlowProvider

__all__ = ["FlowProvider"]
