"""Ten users of the test day for manual inspection: history, the systems' lists, and reasons.

Shapes: U users, H history items, K listed items, T SID tokens, N items.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onerec.evaluation.data import EvaluationData
from onerec.evaluation.example_page import heading
from onerec.evaluation.systems import System
from onerec.markdown import plain, template
from onerec.reward.scoring import score_sessions
from onerec.session_dataset.user_attributes import take_rows

NUM_USERS, LIST_LENGTH = 10, 5
LONGEST = 100
"""Characters of a title or an item id that are shown."""
PAGE = template("""\
{% for user in users %}
{{ user.heading }}

Before, newest last: {{ user.history | join(", ") or "nothing" }}

On {{ day }}: {{ user.targets | join(", ") }}

{{ markdown_table(list_columns, user.lists) }}

{{ markdown_table(
    ["item", "nearest by semantic ID", "nearest by vector", "score"], user.reasons
) }}

The reward model of the list of {{ explained }}: {{ user.towers | join(", ") }}

{% endfor %}
""")


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """What of a user's history is nearest to a listed item; -1 and NaN where there is none.

    Attributes:
        by_tokens: (U, K) item with the longest shared beginning of semantic ID, the newest of them.
        shared_tokens: (U, K) how many tokens it shares.
        by_vector: (U, K) item with the most similar vector.
        cosine: (U, K) their similarity.
    """

    by_tokens: np.ndarray
    shared_tokens: np.ndarray
    by_vector: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True, kw_only=True)
class UserExamples:
    """Some cases with the lists of every system.

    Attributes:
        data: The cases alone, with what they are measured with.
        lists: System -> (U, K) item indices, best first, -1 padded.
        scores: (U, K) of the explained system: what its lists are sorted by.
        reasons: Of the explained system's items.
        towers: Signal -> (U,) its probability for the explained system's first items, by the
            reward model.
        explained: Name of the system.
    """

    data: EvaluationData
    lists: Mapping[str, np.ndarray]
    scores: np.ndarray
    reasons: Reasons
    towers: Mapping[str, np.ndarray]
    explained: str


def collect_user_examples(
    data: EvaluationData, systems: Mapping[str, System], *, explained: str
) -> UserExamples:
    """A seeded sample of cases with the list that every system gives them.

    Args:
        data: All cases of the test day.
        systems: By name.
        explained: The system whose items get reasons.
    """
    number = min(NUM_USERS, len(data.user_ids))
    rng = np.random.default_rng(data.config.seed)
    rows = np.sort(rng.choice(len(data.user_ids), number, replace=False))
    few = dataclasses.replace(
        data,
        user_ids=data.user_ids[rows],
        histories=data.histories[rows],
        targets=data.targets[rows],
        attributes=take_rows(data.attributes, rows),
    )
    ranked = {
        name: system.ranker.rank(
            few.histories,
            max(LIST_LENGTH, data.session_items),
            exclude=few.histories if system.excludes_seen else None,
            candidates=few.candidates,
            attributes=few.attributes,
        )
        for name, system in systems.items()
    }
    listed = ranked[explained]
    model = data.reward_models["training"]
    session = torch.from_numpy(listed.items[:, : data.session_items])
    scored = score_sessions(model, data.vectors, torch.from_numpy(few.histories), session)
    return UserExamples(
        data=few,
        lists={name: found.items[:, :LIST_LENGTH] for name, found in ranked.items()},
        scores=listed.scores[:, :LIST_LENGTH],
        reasons=nearest_in_history(
            torch.from_numpy(few.histories),
            torch.from_numpy(listed.items[:, :LIST_LENGTH]),
            data.semantic_ids.codes,
            data.vectors,
        ),
        towers={s.name: scored[:, i].numpy() for i, s in enumerate(model.signals)},
        explained=explained,
    )


def nearest_in_history(
    histories: Tensor, listed: Tensor, codes: Tensor, vectors: Tensor
) -> Reasons:
    """The history item nearest to each listed item, by semantic ID and by vector.

    Args:
        histories: (U, H) item indices, oldest first, -1 padded.
        listed: (U, K) item indices, -1 padded.
        codes: (N, T) semantic IDs.
        vectors: (N, Dv) unit vectors.

    Examples:
        >>> codes = torch.tensor([[0, 0], [0, 1], [1, 1]])
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> found = nearest_in_history(torch.tensor([[1, 2]]), torch.tensor([[0]]), codes, vectors)
        >>> found.by_tokens.item(), found.shared_tokens.item()  # item 1 shares the first token
        (1, 1)
        >>> found.by_vector.item(), round(found.cosine.item(), 1)
        (2, 0.6)
    """
    is_known = (histories >= 0)[:, None, :] & (listed >= 0)[:, :, None]  # (U, K, H)
    past, given = histories.clamp(min=0), listed.clamp(min=0)
    equal = codes[given][:, :, None] == codes[past][:, None]  # (U, K, H, T)
    shared = equal.int().cumprod(-1).sum(-1).masked_fill(~is_known, -1)
    cosine = (vectors[given] @ vectors[past].mT).masked_fill(~is_known, -torch.inf)
    newest_first = torch.arange(shared.shape[-1])  # settles ties
    by_tokens = (shared * shared.shape[-1] + newest_first).argmax(-1)
    by_vector = cosine.argmax(-1)
    none = ~is_known.any(-1)

    def items(place: Tensor) -> np.ndarray:
        return histories.gather(1, place).masked_fill(none, -1).numpy()

    best = cosine.amax(-1).masked_fill(none, torch.nan)
    return Reasons(
        by_tokens=items(by_tokens),
        shared_tokens=shared.amax(-1).clamp(min=0).numpy(),
        by_vector=items(by_vector),
        cosine=best.numpy(),
    )


def as_markdown(examples: UserExamples, titles: Mapping[str, str]) -> str:
    """A page: for every user the history, the day, the lists and the reasons.

    Args:
        examples: The users.
        titles: Item id -> title; an item without one is shown by its id.
    """
    ids = examples.data.semantic_ids.item_ids

    def named(item: int) -> str:
        if item < 0:
            return "-"
        title = titles.get(str(ids[item]))
        return f"{_shown(title)} ({_shown(ids[item])})" if title else _shown(ids[item])

    users = [
        {
            "heading": heading(user),
            "history": [named(i) for i in examples.data.histories[row] if i >= 0][-10:],
            "targets": [named(i) for i in examples.data.targets[row] if i >= 0],
            "lists": _lists_of(examples, row, named),
            "reasons": _reasons_of(examples, row, named),
            "towers": [f"{name} {values[row]:.2f}" for name, values in examples.towers.items()],
        }
        for row, user in enumerate(examples.data.user_ids)
    ]
    return PAGE.render(
        users=users,
        day=examples.data.test_day,
        explained=examples.explained,
        list_columns=["system", *range(1, LIST_LENGTH + 1)],
    )


def _shown(text: object) -> str:
    """A title or an id: its beginning, as nothing but text."""
    words = str(text)
    return plain(words if len(words) <= LONGEST else f"{words[:LONGEST]}...")


def _lists_of(examples: UserExamples, row: int, named: Callable[[int], str]) -> list[list[str]]:
    """The systems' lists side by side; items that the user watched that day in bold."""
    watched = set(examples.data.targets[row])

    def cell(item: int) -> str:
        return f"**{named(item)}**" if item in watched and item >= 0 else named(item)

    lines = []
    for name, items in examples.lists.items():
        cells = [cell(item) for item in items[row]]
        lines.append([name, *cells, *["-"] * (LIST_LENGTH - len(cells))])
    return lines


def _reasons_of(examples: UserExamples, row: int, named: Callable[[int], str]) -> list[list[str]]:
    """Why the explained system lists its items."""
    why, tokens = examples.reasons, examples.data.semantic_ids.num_sid_tokens
    lines = []
    for place, item in enumerate(examples.lists[examples.explained][row]):
        if item < 0:
            continue
        by_tokens = f"{named(why.by_tokens[row, place])}: {why.shared_tokens[row, place]}"
        by_vector = f"{named(why.by_vector[row, place])}: {why.cosine[row, place]:.2f}"
        score = f"{examples.scores[row, place]:.2f}"
        lines.append([named(item), f"{by_tokens} of {tokens} tokens", by_vector, score])
    return lines
