"""Grok: architecture, weights and their formats. Importing this package imports torch."""

from colossi.model.grok import Grok

__all__ = ["Grok"]
