"""The machine of a run: devices, memory, clocks, and the facts that a run records about its environment."""
