"""The controller under storms of faults, in virtual time: whatever happens, in whatever order it is told."""
