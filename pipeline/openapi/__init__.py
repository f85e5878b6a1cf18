"""The OpenAPI 3.1 documents: `ingest.document` for ingest, `delivery.document` for the registry and the subscribers."""
