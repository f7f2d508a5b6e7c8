"""Events that others send over HTTP: /ingest/events, /ingest/litellm, OTLP's /v1/traces and /v1/metrics.

`face` takes a body in and answers, `intake` reads it in a thread of its own and appends what it held, and each way in
has one module that turns its body into events: `wire`, `litellm`, `otlp` with `spans` and `series`.
"""
