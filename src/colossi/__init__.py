"""colossi takes a GPU supercomputer from an empty site to a model that you can talk to."""

__version__ = "0.1.0"
