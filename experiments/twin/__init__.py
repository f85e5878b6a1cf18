"""The twin of known truth: a stand-in for the chain, on its real protocols, whose delays and faults are planted."""
