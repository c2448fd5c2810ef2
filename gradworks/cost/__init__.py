"""What a step costs: time beside plain training, memory, operations, energy; and the hardware that it ran on."""
