"""The Postman collection: made from the OpenAPI documents, and run by newman (`python -m experiments postman`)."""
