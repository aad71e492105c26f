"""The machine as it is built: which switch is cabled to which."""
