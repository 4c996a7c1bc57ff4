"""Amazon Beauty by TIGER's protocol: baselines, the generator, and a dense head beside it."""
