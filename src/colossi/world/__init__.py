"""The simulated hardware: what fails, how the network carries traffic, what power it all draws."""
