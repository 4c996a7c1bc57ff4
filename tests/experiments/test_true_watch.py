"""The simulator's ground truth in oracle rows, against draws and brute force."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.ab_test.traffic import Visitors
from experiments.ab_test.true_choice import TrueChoice
from experiments.true_watch import TrueWatch, scored_by_truth
from onerec.alignment.candidates import sample_contexts, scored_candidates
from onerec.alignment.pairs import PreferencePairs
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import round_preferences
from onerec.artifacts import ArtifactStore
from onerec.config import AlignmentConfig, BeamConfig, Runtime
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator import behaviour
from onerec.datasets.simulator.world import numbers
from tests.experiments import simulated_night as simulated

SOURCE = SimulatedSource(simulated.APP)
DECODING = BeamConfig(beam=8, candidates=8, batch_size=7)
ALIGNMENT = AlignmentConfig(sample_users=20)
RUNTIME = Runtime(accelerator="cpu", threads=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RoundInputs:
    night = simulated.publish(ArtifactStore(str(tmp_path_factory.mktemp("night"))))
    return RoundInputs(
        session_dataset=night["session_dataset"].path,
        semantic_ids=night["semantic_ids"].path,
        start=night["pretrained_checkpoint"].path,
        reward_model=night["reward_model"].path,
        test_day=simulated.DAY,
    )


@pytest.fixture(scope="module")
def truth(inputs: RoundInputs) -> TrueWatch:
    return TrueWatch.of(SOURCE, inputs.ids, simulated.DAY)


def seconds_of(user: str, day: int, items: list[str]) -> float:
    """A session's expected seconds, one exposure after the other, from the app's own functions."""
    world, total = SOURCE.world, 0.0
    everything = world.items(4)
    for place, item in enumerate(numbers(items)):
        pair = (np.array([0]), np.array([item]))
        liked = behaviour.affinity(
            world, world.users(4), numbers([user]), everything, float(day), pair
        )
        total += behaviour.expected_watch_seconds(liked, everything.duration[item], place)[0]
    return total


def test_a_sessions_truth_is_the_mean_of_what_users_watch(truth: TrueWatch, inputs: RoundInputs):
    users, days = np.array([3, 11]), np.array([2, 4])
    sessions = np.array([[[5, 9, 20], [9, 5, -1]], [[0, 7, 2], [-1, -1, -1]]])
    found = truth.seconds(users, days, sessions)
    rng, world = np.random.default_rng(0), SOURCE.world
    items = world.items(4)
    for row, (user, day) in enumerate(zip(users, days, strict=True)):
        for place in np.ndindex(2):
            session = sessions[row, place[0]]
            watched = 0.0
            for position, index in enumerate(session[session >= 0]):
                number = int(inputs.ids.item_ids[index][1:])
                pairs = (np.zeros(20_000, int), np.full(20_000, number))
                liked = behaviour.affinity(
                    world, world.users(4), np.array([user]), items, float(day), pairs
                )
                drawn, _ = behaviour.draw_watch(
                    rng, liked, items.duration[pairs[1]], np.full(20_000, position)
                )
                watched += drawn.mean()
            assert found[row, place[0]] == pytest.approx(watched, rel=0.03)


def test_pairs_are_the_longest_and_the_shortest_watched_of_the_beam(
    inputs: RoundInputs, truth: TrueWatch
):
    made = round_preferences(
        inputs, DECODING, ALIGNMENT, runtime=RUNTIME, score=scored_by_truth(truth)
    )
    assert isinstance(made, PreferencePairs)
    assert len(made) > 10
    learned = inputs.sessions("train", held_out=False)
    contexts = sample_contexts(learned, ALIGNMENT.sample_users, ALIGNMENT.seed)
    found = list(
        scored_candidates(
            inputs.generator(DECODING, RUNTIME),
            inputs.ensemble(inputs.reward_model),
            contexts,
            num_candidates=DECODING.candidates,
            alignment=ALIGNMENT,
        )
    )
    items, legal = (torch.cat([getattr(f, n) for f in found]) for n in ("items", "logp"))
    row_of = {str(contexts.user_ids[u]): row for row, u in enumerate(contexts.user.tolist())}
    names = inputs.ids.item_ids
    for pair, user in enumerate(made.user_ids):
        row = row_of[str(user)]
        day = (contexts.date[row] - np.datetime64(SOURCE.first_day)).astype(int)
        beams = [s for s, logp in zip(items[row], legal[row], strict=True) if logp.isfinite()]
        values = [seconds_of(str(user), int(day), list(names[s.numpy()])) for s in beams]
        assert made.chosen[pair].tolist() == beams[int(np.argmax(values))].tolist()
        assert float(made.chosen_reward[pair]) == pytest.approx(max(values))
        assert float(made.rejected_reward[pair]) == pytest.approx(min(values))


def test_a_list_by_truth_begins_with_the_longest_watched_session(
    inputs: RoundInputs, truth: TrueWatch
):
    generator, users = inputs.generator(DECODING, RUNTIME), np.array([2, 4, 6])
    oracle = TrueChoice(generator, truth).of(Visitors(users, 4))
    histories = np.array([[1, 2, -1], [3, -1, -1], [-1, -1, -1]])
    exclude = np.array([[4], [5], [-1]])
    lists = oracle.rank(histories, 12, exclude)
    made, names = generator.sessions(histories, None, exclude).items.numpy(), inputs.ids.item_ids
    width = made.shape[2]
    for row, user in enumerate(users):
        beams = [list(names[s]) for s in made[row] if (s >= 0).all()]
        values = [seconds_of(f"u{user:06}", 4, beam) for beam in beams]
        listed = lists.items[row]
        assert list(names[listed[:width]]) == beams[int(np.argmax(values))]
        alone = [seconds_of(f"u{user:06}", 4, [names[item]]) for item in listed[width:]]
        assert alone == sorted(alone, reverse=True)
        assert len(set(listed.tolist())) == 12
        assert exclude[row, 0] not in listed


def test_a_real_log_has_no_truth(inputs: RoundInputs, tmp_path: Path):
    class Real:
        first_day = simulated.DAY - timedelta(days=4)

    with pytest.raises(ValueError, match="Real has no ground truth"):
        TrueWatch.of(Real(), inputs.ids, simulated.DAY)  # pyright: ignore[reportArgumentType]
