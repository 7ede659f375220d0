"""Delivery of events: a queue on disk, programs and webhooks."""
