"""A seeded simulator of a short-video app: `config` -> `world` -> `behaviour` -> `log`."""
