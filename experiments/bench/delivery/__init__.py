"""The delivery benchmark: thousands of clients, churn, and a killed subscriber."""
