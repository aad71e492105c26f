"""A design as files that other programs read; a module for each format."""
