"""The session dataset: one session a row (`schema.SESSION_DATASET`), split by day.

It is the boundary between SQL and models: the warehouse's sessions are written here once a day
(`writer`), split into training, validation and test days (`splits`), and everything that learns or
measures reads them back through this package and nothing else:

- `reader`: columns as Arrow tables, list columns as item indices;
- `generator_sessions`: (history, targets) to train and align a generator on;
- `user_sequences`: everything a user watched, in order, and sessions cut from it;
- `reward_blocks`: consecutive exposures with labels, to train a reward model on;
- `eval_users`: histories and the items watched afterwards, to evaluate a recommender on;
- `interactions`, `logged_exposures`: exposures one by one, to fit baselines and rankers on;
- `histories`: histories at the end of the last day, to serve with;
- `session_checks`: facts recounted from the lists, to check a dataset with.
"""
