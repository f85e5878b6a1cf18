"""What every stage tells of itself to Prometheus, and a dashboard and a scrape configuration to look at it with."""
