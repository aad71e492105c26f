"""Whether a node is fit for work: checks, limits, and the rules of who is taken out. Without torch."""
