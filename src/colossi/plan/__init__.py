"""The planner: what a run will do on machines that need not exist. NumPy at most, no torch."""
