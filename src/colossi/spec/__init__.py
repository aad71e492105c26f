"""What you want, as a document: the tables of a spec, the catalogue, and how they are read."""

from colossi.spec.read import build_spec, read_spec
from colossi.spec.spec import Spec

__all__ = ["Spec", "build_spec", "read_spec"]
