"""The cost of a step: time relative to plain training, memory, operations, energy; and the hardware."""
