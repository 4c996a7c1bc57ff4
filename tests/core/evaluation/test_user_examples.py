"""Ten users for a person to read: reasons against brute force, titles, hits in bold."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from onerec.config import ALIGNED
from onerec.evaluation.example_page import without_ids, without_users
from onerec.evaluation.systems import System
from onerec.evaluation.user_examples import (
    LIST_LENGTH,
    NUM_USERS,
    as_markdown,
    collect_user_examples,
    nearest_in_history,
)
from tests.core.evaluation.night import load_artifacts, write_artifacts


def test_reasons_equal_the_brute_force() -> None:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (30, 4), generator=draw)
    vectors = torch.nn.functional.normalize(torch.randn(30, 5, generator=draw), dim=1)
    histories = torch.randint(-1, 30, (6, 7), generator=draw)
    histories[2] = -1
    listed = torch.randint(-1, 30, (6, 3), generator=draw)
    found = nearest_in_history(histories, listed, codes, vectors)
    for u, past in enumerate(histories.tolist()):
        known = [(place, item) for place, item in enumerate(past) if item >= 0]
        for k, item in enumerate(listed[u].tolist()):
            if item < 0 or not known:
                assert found.by_tokens[u, k] == found.by_vector[u, k] == -1
                assert np.isnan(found.cosine[u, k])
                continue

            def shared(other: int, item: int = item) -> int:
                different = (codes[item] != codes[other]).tolist()
                return different.index(True) if True in different else len(different)

            _, best = max(known, key=lambda pair: (shared(pair[1]), pair[0]))
            assert found.by_tokens[u, k] == best
            assert found.shared_tokens[u, k] == shared(best)
            cosines = {other: float(vectors[item] @ vectors[other]) for _, other in known}
            assert found.cosine[u, k] == pytest.approx(max(cosines.values()), abs=1e-6)
            assert cosines[int(found.by_vector[u, k])] == pytest.approx(max(cosines.values()))


def test_a_page_shows_titles_hits_and_every_system(tmp_path) -> None:
    data = load_artifacts(write_artifacts(tmp_path))
    systems = {
        "popularity": System(data.baselines.popularity),
        ALIGNED: System(data.baselines.rankers["itemknn"]),
    }
    examples = collect_user_examples(data, systems, explained=ALIGNED)
    assert len(examples.data.user_ids) == min(NUM_USERS, len(data.user_ids))
    assert set(examples.data.user_ids) <= set(data.user_ids)
    assert all(items.shape[1] <= LIST_LENGTH for items in examples.lists.values())
    ids = data.semantic_ids.item_ids
    page = as_markdown(examples, {ids[n]: f"film {n} | part 2" for n in range(0, len(ids), 2)})
    for user in examples.data.user_ids:
        assert f"## {user}" in page
    someone = examples.data.user_ids[0]
    fewer, gone = without_users(page, [someone, "nobody"])
    assert gone == 1
    assert fewer == page[page.index(f"## {examples.data.user_ids[1]}\n") :]
    assert not any(f"## {user}\n" in without_ids(page) for user in examples.data.user_ids)
    for row in range(len(examples.data.user_ids)):
        hits = set(examples.data.targets[row]) & set(examples.lists["popularity"][row]) - {-1}
        for item in hits:
            title = f"film {item} \\| part 2 ({ids[item]})" if item % 2 == 0 else ids[item]
            assert f"**{title}**" in page
    assert {"swt", "vtr"} <= set(examples.towers)
    assert all(((p >= 0) & (p <= 1)).all() for p in examples.towers.values())


def test_titles_and_ids_are_text_and_a_user_is_one_section(tmp_path) -> None:
    data = load_artifacts(write_artifacts(tmp_path))
    examples = collect_user_examples(
        data, {ALIGNED: System(data.baselines.popularity)}, explained=ALIGNED
    )
    odd = ["bell\nnext\x07", "_a_|<b>", "\u202eright", "z\n## z"]
    users = np.array([*odd, *examples.data.user_ids[len(odd) :]], dtype=object)
    examples = dataclasses.replace(
        examples, data=dataclasses.replace(examples.data, user_ids=users)
    )
    title = "two\n\n## lines <img src=x> **b** [x](javascript:y) \u202e " + "long" * 200
    page = as_markdown(examples, dict.fromkeys(data.semantic_ids.item_ids, title))
    assert len(re.findall("^## ", page, flags=re.MULTILINE)) == len(users)
    assert not re.search(r"[\u202e\x07]|(?<!\\)[<\[]|" + "long" * 30, page)
    anonymous = without_ids(page)
    for user, shown in zip(
        odd, ("bell next", "\\_a\\_|\\<b\\>", "right", "z \\#\\# z"), strict=True
    ):
        assert f"## {shown}\n" in page
        assert shown not in anonymous
        kept, gone = without_users(page, [user])
        assert gone == 1
        assert f"## {shown}\n" not in kept
        assert len(re.findall("Before, newest last", kept)) == len(users) - 1
    assert without_users(f"## {odd[1]}\n\nof an earlier version", [odd[1]]) == ("", 1)
