"""A seeded simulator of a short-video app: `config` -> `world` -> `behaviour` -> `log`.

`serving` lets a policy under test take the place of the logging policy.
"""
