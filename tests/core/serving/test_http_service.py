"""The HTTP service over a real socket: it follows what is current, and answers under load."""

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import pyarrow as pa
import pytest
import torch

from onerec.evaluation.baselines import fit_baselines
from onerec.model import UserVocabulary, load_model, save_model
from onerec.schema import RECOMMENDATIONS
from onerec.serving.current import ServedVersion, publish_current
from onerec.serving.recommender import write_bundle
from onerec.serving.simple_recommender import write_simple_bundle
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as small

uvicorn = pytest.importorskip("uvicorn", reason='pip install -e ".[serve]"')
pytest.importorskip("fastapi", reason='pip install -e ".[serve]"')


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Path]:
    """A generator's bundle and a simple system's."""
    ids = small.write_catalogue(tmp_path / "ids", small.catalogue())
    dataset = small.write_sessions(tmp_path / "sessions", small.rows())
    window = load_interactions(dataset, small.catalogue(), test_day=small.DAY)
    fitted = fit_baselines(window, small.catalogue().known_before(small.DAY), neighbours=5)
    (tmp_path / "baselines").mkdir()
    fitted.save(tmp_path / "baselines")
    write_simple_bundle(
        tmp_path / "simple", system="itemknn", baselines=tmp_path / "baselines",
        semantic_ids=ids, history_length=small.HISTORY, config=small.DECODING,
    )  # fmt: skip
    checkpoint = small.write_generator(tmp_path / "model", seed=0)
    write_bundle(
        tmp_path / "generator", checkpoint=checkpoint, semantic_ids=ids, config=small.DECODING
    )
    return {name: tmp_path / name for name in ("simple", "generator")}


def publish(root: Path, bundle: Path, day: str, version: str, degraded: str | None = None) -> None:
    serve_date = date.fromisoformat(day).isoformat()
    served = ServedVersion(
        day=day, serve_date=serve_date, version="v", model_version=version, degraded=degraded
    )
    ids = [f"i{n:02}" for n in range(3, 40)]
    titles = pa.table({"item_id": ids, "title": [f"title of {name}" for name in ids[:-1]] + [None]})
    empty = RECOMMENDATIONS.empty_table()
    assert publish_current(root, served, table=empty, titles=titles, bundle=bundle)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The directory that it follows, and its port."""
    from onerec.serving.http_service import HOST, application

    root = tmp_path / "serving"
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(application(root), host=HOST, port=port, log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield root, port
    server.should_exit = True
    thread.join(timeout=20)


def until(reached, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
        return json.load(response)


def post(port: int, body: object) -> dict:
    url, headers = f"http://127.0.0.1:{port}/recommend", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def status_of(port: int, path: str, body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status
    except HTTPError as error:
        error.close()
        return error.code


def test_it_follows_what_is_current_and_answers_like_the_bundle(
    service: tuple[Path, int], bundles: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    from onerec.serving.bundle import load_bundle
    from onerec.serving.http_load_test import ask, load_test

    root, port = service
    assert status_of(port, "/health") == 503
    publish(root, bundles["simple"], "2026-06-14", "itemknn", degraded="no memory")
    until(lambda: status_of(port, "/health") == 200)
    assert get(port, "/health") == {"status": "ok", "degraded": "no memory", "problem": None}
    publish(root, bundles["generator"], "2026-06-15", "model-1")
    until(lambda: get(port, "/version")["day"] == "2026-06-15")
    history = ["i01", "i02", "unknown"]
    items, _ = ask(port, history, 7)
    expected = load_bundle(bundles["generator"]).recommend(history, 7)
    assert [item["item_id"] for item in items] == [r.item_id for r in expected]
    assert not {"i01", "i02"} & {item["item_id"] for item in items}
    assert all(item["reward"] is None for item in items)
    known = {f"i{n:02}" for n in range(3, 39)}
    titles = {i["item_id"]: f"title of {i['item_id']}" for i in items if i["item_id"] in known}
    assert titles
    assert all(item["title"] == titles.get(item["item_id"]) for item in items)
    found = load_test(port, requests=40, clients=4, k=5)
    assert len(found.seconds) == 40
    assert "p50" in str(found)


@pytest.mark.parametrize(
    "body", [{}, {"history": "i01"}, {"history": [], "k": 0}, {"history": [], "k": 10**6}]
)
def test_a_wrong_request_is_refused(
    service: tuple[Path, int], bundles: dict[str, Path], body: dict
) -> None:
    root, port = service
    publish(root, bundles["simple"], "2026-06-14", "itemknn")
    until(lambda: status_of(port, "/health") == 200)
    assert status_of(port, "/recommend", body) == 422


def test_ids_may_be_texts_and_integers_of_any_size_in_one_request(
    service: tuple[Path, int], bundles: dict[str, Path]
) -> None:
    root, port = service
    publish(root, bundles["simple"], "2026-06-14", "itemknn")
    until(lambda: status_of(port, "/health") == 200)
    expected = post(port, {"history": ["i01", "5", "v1"], "k": 3})["items"]
    for history in (["i01", 5, "v1"], [5, "i01", "v1"], ["i01", 10**30, -1]):
        assert post(port, {"history": history, "k": 3})["items"] == expected


def test_attributes_of_users_go_by_their_names(
    service: tuple[Path, int], bundles: dict[str, Path]
) -> None:
    from onerec.serving.bundle import load_bundle

    model, version = load_model(bundles["generator"], expected_tokenizer_version=None)
    model.add_user_features(UserVocabulary({"plan": ("free", "pro")}))
    assert model.users is not None
    torch.nn.init.normal_(model.users.embedding.weight, std=5.0)
    save_model(model, bundles["generator"], tokenizer_version=version)
    root, port = service
    publish(root, bundles["generator"], "2026-06-14", "model-1")
    until(lambda: status_of(port, "/health") == 200)
    recommender = load_bundle(bundles["generator"])
    lists = []
    for user in ({"plan": "free"}, {"plan": "pro"}, {"plan": None}, {}):
        reply = post(port, {"history": ["i01"], "k": 7, "user": user})
        lists.append([item["item_id"] for item in reply["items"]])
        assert lists[-1] == [r.item_id for r in recommender.recommend(["i01"], 7, user=user)]
    assert lists[0] != lists[1]
    assert lists[2] == lists[3]
    assert "ignored" not in reply
    more = {"history": ["i01"], "k": 7, "user": {"plan": "pro", "team": "x", "age": None}}
    reply = post(port, more)  # clients need not know what serves
    assert reply["ignored"] == ["age", "team"]
    assert [item["item_id"] for item in reply["items"]] == lists[1]
    publish(root, bundles["simple"], "2026-06-15", "itemknn")
    until(lambda: get(port, "/version")["day"] == "2026-06-15")
    assert post(port, more)["ignored"] == ["age", "plan", "team"]


def test_a_bundle_that_is_damaged_does_not_stop_the_service(
    service: tuple[Path, int], bundles: dict[str, Path]
) -> None:
    from onerec.serving.http_load_test import ask

    root, port = service
    publish(root, bundles["simple"], "2026-06-14", "itemknn")
    until(lambda: status_of(port, "/health") == 200)
    (bundles["generator"] / "model.safetensors").write_bytes(b"")
    publish(root, bundles["generator"], "2026-06-15", "model-1")
    until(lambda: get(port, "/health")["status"] == "stale")
    assert "2026-06-15-v cannot be loaded" in get(port, "/health")["problem"]
    assert get(port, "/version")["model_version"] == "itemknn"
    assert len(ask(port, ["i01"], 5)[0]) == 5


def test_a_bundle_that_cannot_be_loaded_is_said_with_the_remedy(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    from onerec.serving.http_service import CurrentBundle

    current = CurrentBundle(tmp_path, "cpu")
    assert "nothing is served in" in current.problem
    publish(tmp_path, bundles["simple"], "2026-06-14", "itemknn")
    (tmp_path / "current" / "served.json").write_text("{")
    assert not current.refresh()
    assert "cannot be loaded" in current.problem
    assert "publish it again" in current.problem


def test_a_bundle_that_cannot_be_loaded_is_said_once_and_tried_again_after_longer_pauses(
    tmp_path: Path,
    bundles: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from onerec.serving import http_service

    now, attempts, load = [0.0], [], http_service.load_bundle

    def counted(directory: Path, device: str):
        attempts.append(now[0])
        return load(directory, device=device)

    monkeypatch.setattr(http_service, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(http_service, "load_bundle", counted)
    publish(tmp_path, bundles["simple"], "2026-06-14", "itemknn")
    current = http_service.CurrentBundle(tmp_path, "cpu")
    assert current.refresh()
    attempts.clear()
    weights = (bundles["generator"] / "model.safetensors").read_bytes()
    (bundles["generator"] / "model.safetensors").write_bytes(b"")
    publish(tmp_path, bundles["generator"], "2026-06-15", "model-1")
    for second in range(1000):
        now[0] = float(second)
        assert not current.refresh()
    assert attempts == [0, 2, 6, 14, 30, 62, 126, 254, 510, 810]
    assert len([record for record in caplog.records if record.exc_info]) == 1
    (bundles["generator"] / "model.safetensors").write_bytes(weights)
    publish(tmp_path, bundles["generator"], "2026-06-15", "model-1")
    assert current.refresh()  # another version: at once
    assert current.problem == ""
