"""Parts of the chain for tests: doubles, a scripted server, and how tests read from a bus and a scrape."""
