"""The machine of a measurement: its facts, its clock, real-time priority, and that one measurement has it alone."""
