"""The load by Apache JMeter: its plan, a run of it, and the ledger's audit of what it sent."""
