"""A small HTTP service over the current bundle, for one machine: `python -m onerec_dagster serve`.

    POST /recommend   {"history": ["v1", "v2"], "k": 20}   items with title, score and reward;
                      "user": {"country": "DE"}, what is known of the user; names that what is
                      served now does not know come back as "ignored"
    GET  /health      503 until a bundle is loaded; whether serving is degraded; "status": "stale"
                      with the problem where what is current cannot be loaded
    GET  /version     day and model version

It listens on localhost only and follows the link `current` (`onerec.serving.current`): when that
moves, the new bundle is loaded in the background, and the old one answers until then. Needs
`pip install -e ".[serve]"`.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from onerec.artifacts import read_json
from onerec.config import SettingError
from onerec.serving.bundle import load_bundle
from onerec.serving.current import (
    BUNDLE,
    CURRENT,
    PUBLISH_AGAIN,
    SERVED,
    TITLES,
    ServedVersion,
)
from onerec.serving.item_id_recommender import ItemIdRecommender

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
CHECK_SECONDS = 1.0
"""Seconds between two checks whether `current` moved."""
LONGEST_PAUSE_SECONDS = 300.0
"""Between two attempts to load a bundle that could not be loaded; the first pauses are shorter."""
LONGEST_HISTORY, LONGEST_LIST, MOST_ATTRIBUTES = 10_000, 1000, 1000


class Request(BaseModel):
    """Body of `/recommend`."""

    history: list[str | int] = Field(max_length=LONGEST_HISTORY, description="Oldest first")
    k: int = Field(default=20, ge=1, le=LONGEST_LIST)
    exclude_seen: bool | None = Field(default=None, description="None: as the bundle says")
    user: dict[str, str | None] | None = Field(
        default=None, max_length=MOST_ATTRIBUTES, description="Values by the names of attributes"
    )


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle in memory.

    Attributes:
        where: Directory of the version.
        served: Contents of its `served.json`.
        recommender: The recommender of the bundle.
        titles: Title by item id; items without a title are absent.
    """

    where: Path
    served: ServedVersion
    recommender: ItemIdRecommender
    titles: pd.Series


def _titles(version: Path) -> pd.Series:
    """Titles by item id; empty for versions published before there were titles."""
    if not (version / TITLES).exists():
        return pd.Series(dtype=object)
    table = pd.read_parquet(version / TITLES).dropna().drop_duplicates("item_id")
    return table.set_index("item_id")["title"]


class CurrentBundle:
    """The bundle that `current` names, loaded anew in the background when it moves."""

    def __init__(self, root: Path, device: str) -> None:
        self.root, self.device = root, device
        self.loaded: LoadedBundle | None = None
        self.problem = f"nothing is served in {root} yet: make a nightly run first, rerun DAY"
        """Why what `current` names is not what serves; empty where it is."""
        self.computing = threading.Lock()
        """Lists are made one at a time: torch uses all cores for each."""
        self._stop = threading.Event()
        self._failed: Path | None = None
        self._pause = self._again_at = 0.0

    def refresh(self) -> bool:
        """Load the bundle that `current` names unless it is loaded; returns whether it loaded one.

        A bundle that cannot be loaded is logged once and tried again after ever longer pauses; the
        previous one goes on serving.
        """
        link = self.root / CURRENT
        if not link.exists():
            return False
        where = link.resolve()
        if self.loaded is not None and self.loaded.where == where:
            self._failed, self.problem = None, ""
            return False
        if where == self._failed and time.monotonic() < self._again_at:
            return False
        try:
            served = ServedVersion(**read_json(where / SERVED))
            bundle = load_bundle(where / BUNDLE, device=self.device)
            self.loaded = LoadedBundle(where, served, bundle, _titles(where))
        except Exception as error:
            self._put_off(where, error)
            return False
        self._failed, self.problem = None, ""
        log.info("serving %s of %s", served.model_version, served.day)
        return True

    def _put_off(self, where: Path, error: Exception) -> None:
        self.problem = f"{where} cannot be loaded ({error}): {PUBLISH_AGAIN}"
        if where != self._failed:
            self._failed, self._pause = where, CHECK_SECONDS
            log.exception("%s cannot be loaded; what was loaded before goes on serving", where)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._again_at = time.monotonic() + self._pause

    def follow(self) -> threading.Thread:
        """Start a thread that calls `refresh` until `stop`."""

        def watch() -> None:
            while not self._stop.wait(CHECK_SECONDS):
                self.refresh()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the thread that `follow` started."""
        self._stop.set()


def application(root: Path, device: str = "cpu") -> FastAPI:
    """The FastAPI application.

    Args:
        root: The directory that consumers know, `serving/` of a data set's state.
        device: Where the model runs.
    """
    current = CurrentBundle(root, device)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current.refresh()
        thread = current.follow()
        yield
        current.stop()
        thread.join()

    app = FastAPI(title="OneRec", lifespan=lifespan)

    def loaded() -> LoadedBundle:
        if current.loaded is None:
            raise HTTPException(503, current.problem)
        return current.loaded

    @app.post("/recommend")
    def recommend(request: Request) -> dict[str, Any]:
        bundle, began = loaded(), time.monotonic()
        known, user = bundle.recommender.known_attributes or (), request.user or {}
        ignored = sorted(user.keys() - set(known))
        try:
            with current.computing:
                found = bundle.recommender.recommend(
                    request.history,
                    request.k,
                    exclude_seen=request.exclude_seen,
                    user={name: user[name] for name in user.keys() & set(known)},
                )
        except SettingError as error:
            raise HTTPException(422, str(error)) from error
        return {
            "items": [asdict(item) | {"title": bundle.titles.get(item.item_id)} for item in found],
            "model_version": bundle.served.model_version,
            "day": bundle.served.day,
            "milliseconds": round(1000 * (time.monotonic() - began), 2),
        } | ({"ignored": ignored} if ignored else {})

    @app.get("/health")
    def health() -> dict[str, Any]:
        degraded, problem = loaded().served.degraded, current.problem
        return {
            "status": "stale" if problem else "ok",
            "degraded": degraded,
            "problem": problem or None,
        }

    @app.get("/version")
    def version() -> dict[str, Any]:
        return asdict(loaded().served)

    return app


def serve_http(root: Path, port: int, device: str) -> None:
    """Serve until interrupted, on localhost."""
    import uvicorn

    if not (root / CURRENT).exists():
        log.warning("nothing is in %s yet: requests are answered with 503 until there is", root)
    uvicorn.run(application(root, device), host=HOST, port=port, log_level="warning")
