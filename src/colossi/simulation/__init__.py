"""The engine whose nodes do not exist: months of a large fleet's life under the very controller."""
