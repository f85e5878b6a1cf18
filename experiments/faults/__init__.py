"""The fault suite: a real chain under load is harmed, and every reaction is accounted for."""
