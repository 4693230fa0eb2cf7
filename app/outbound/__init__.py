"""Requests that leave for an address somebody named: webhooks, identity providers, documents fetched by URL.

Model servers are reached by `app.services.gateway.link`: the operator names those, and their answers stream.
"""
