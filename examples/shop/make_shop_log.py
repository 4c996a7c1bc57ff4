"""Write the log of a simulated shop, with what its customers really like.

    .venv/bin/python examples/shop/make_shop_log.py my_shop

Writes `events.csv` (view, cart and purchase), `products.csv` and `truth.csv`, and puts the
`my_data.yaml` that describes them beside them. Every customer has two departments out of twelve,
and three staples that are bought again and again; views of other departments are noise and rarely
end in a cart. So two things are known of what a good system finds: staples, and the departments.
"""

import argparse
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

FIRST = date(2026, 6, 1)
DEPARTMENTS = (
    "bakery", "dairy", "fruit", "meat", "fish", "frozen",
    "drinks", "coffee", "cleaning", "garden", "toys", "books",
)  # fmt: skip
PER_DEPARTMENT = 20
SHELVES = 1 / np.arange(1, PER_DEPARTMENT + 1) / (1 / np.arange(1, PER_DEPARTMENT + 1)).sum()
"""Share of a department's views that each of its products gets."""
STAPLES, VIEWS = 3, 6
"""Staples of a customer; views of a visit beside them."""
OWN_SHARE = 0.8
"""Of the views, those of the customer's own departments."""
CART_OWN, CART_OTHER, BUY, BUY_STAPLE, VISIT = 0.4, 0.05, 0.6, 0.6, 0.45


def write(directory: Path, *, customers: int, days: int, seed: int = 7) -> None:
    """Write the files of a small shop.

    Args:
        directory: Where to.
        customers: Number of customers.
        days: Days of log from 2026-06-01.
        seed: Of the whole simulation.
    """
    rng = np.random.default_rng(seed)
    products = _products()
    departments, staples = _tastes(rng, customers)
    log = _log(rng, departments, staples, days)
    log["product"] = products["product"].to_numpy()[log["product"]]
    log = log.sort_values(["timestamp", "visitor", "product", "event"])
    directory.mkdir(parents=True, exist_ok=True)
    log.to_csv(directory / "events.csv", index=False)
    products.to_csv(directory / "products.csv", index=False)
    truth = {
        "visitor": [f"c{v:05}" for v in range(customers)],
        "departments": [" ".join(DEPARTMENTS[d] for d in row) for row in departments],
        "staples": [" ".join(products["product"].to_numpy()[row]) for row in staples],
    }
    pd.DataFrame(truth).to_csv(directory / "truth.csv", index=False)
    mapping = Path(__file__).with_name("my_data.yaml")
    if directory.resolve() != mapping.parent:
        shutil.copy(mapping, directory)


def _tastes(rng: np.random.Generator, customers: int) -> tuple[np.ndarray, np.ndarray]:
    """(customers, 2) departments, and (customers, 3) staples of the first one of them."""
    departments = np.stack(
        [rng.choice(len(DEPARTMENTS), 2, replace=False) for _ in range(customers)]
    )
    shelves = [rng.choice(PER_DEPARTMENT, STAPLES, False, SHELVES) for _ in range(customers)]
    return departments, departments[:, :1] * PER_DEPARTMENT + np.stack(shelves)


def _log(
    rng: np.random.Generator, departments: np.ndarray, staples: np.ndarray, days: int
) -> pd.DataFrame:
    """Visits of some days; the column `product` holds numbers."""
    visitor, day = np.nonzero(rng.random((len(departments), days)) < VISIT)
    shape = (len(visitor), VIEWS)
    chosen = departments[visitor[:, None], rng.integers(2, size=shape)]
    other = rng.integers(len(DEPARTMENTS), size=shape)
    viewed = np.where(rng.random(shape) < OWN_SHARE, chosen, other) * PER_DEPARTMENT
    viewed += rng.choice(PER_DEPARTMENT, size=shape, p=SHELVES)
    seen = np.concatenate([staples[visitor], viewed], axis=1)
    draws = rng.random((2, *seen.shape))
    is_own = (departments[visitor][:, None] == seen[..., None] // PER_DEPARTMENT).any(-1)
    cart = draws[0] < np.where(is_own, CART_OWN, CART_OTHER)
    bought = cart & (draws[1] < BUY)
    cart[:, :STAPLES] = bought[:, :STAPLES] = draws[0][:, :STAPLES] < BUY_STAPLE
    order = rng.permuted(np.tile(np.arange(seen.shape[1]), (len(visitor), 1)), axis=1)
    start = rng.integers(8 * 3600, 20 * 3600, size=len(visitor))
    first = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()
    seconds = int(first) + (day * 86_400 + start)[:, None] + 40 * order
    parts = []
    for event, rows, delay in (
        ("view", np.ones_like(cart), 0),
        ("cart", cart, 10),
        ("purchase", bought, 600),
    ):
        visit, place = np.nonzero(rows)
        names = [f"c{v:05}" for v in visitor[visit]]
        times = (seconds[visit, place] + delay) * 1000
        columns = {"timestamp": times, "visitor": names, "event": event}
        parts.append(pd.DataFrame({**columns, "product": seen[visit, place]}))
    return pd.concat(parts)


def _products() -> pd.DataFrame:
    number = np.arange(len(DEPARTMENTS) * PER_DEPARTMENT)
    department = np.array(DEPARTMENTS)[number // PER_DEPARTMENT]
    place = number % PER_DEPARTMENT
    return pd.DataFrame(
        {
            "product": [f"p{n:04}" for n in number],
            "name": [f"{d} product {p}" for d, p in zip(department, place, strict=True)],
            "department": department,
            "brand": [f"brand {n % 17}" for n in number],
            "price": np.round(1 + (number * 37 % 200) / 10, 2),
        }
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--customers", type=int, default=1500)
    parser.add_argument("--days", type=int, default=15)
    arguments = parser.parse_args()
    write(arguments.directory, customers=arguments.customers, days=arguments.days)


if __name__ == "__main__":
    main()
