"""The supervisor: starts every stage of a chain, restarts stages that die, and scales the chain."""
