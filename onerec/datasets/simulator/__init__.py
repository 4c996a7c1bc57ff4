"""A seeded simulator of a short-video app: `config` -> `world` -> `behaviour` -> `log`.

`experiments.ab_test` lets a policy under test take the place of the logging policy.
"""
