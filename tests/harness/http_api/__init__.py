"""How tests hold the answers of the stages to their OpenAPI documents."""
