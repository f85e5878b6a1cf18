"""The metrics that every stage exposes to Prometheus, with a Grafana dashboard and a scrape configuration."""
