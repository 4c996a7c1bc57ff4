"""The transformer of SASRec and BERT4Rec, and its lists."""

from pathlib import Path

import numpy as np
import torch

from onerec.evaluation.baselines.transformer import SequenceRanker, grown, load_sequence_ranker
from tests.core.evaluation.small_sequences import NUM, model


def test_padding_and_what_comes_later_change_no_state() -> None:
    one = model().eval()
    short = torch.tensor([[1, 2, -1, -1]])
    longer = torch.tensor([[1, 2, 7, 9]])
    torch.testing.assert_close(one(short)[:, :3], one(longer)[:, :3])
    both = model(causal=False).eval()
    torch.testing.assert_close(both(short)[:, :3], both(torch.tensor([[1, 2]])))
    assert not torch.allclose(both(short)[:, :3], both(longer)[:, :3])


def test_lists_hold_candidates_only_and_end_where_they_do(tmp_path: Path) -> None:
    candidates = np.arange(NUM) % 3 == 0
    ranker = SequenceRanker(model().eval(), candidates)
    history = np.array([[1, 2, 3, 4, 5, 6, 7], [-1] * 7])
    ranked = ranker.rank(history, 6).items
    assert (np.sort(ranked[:, :4], 1) == [0, 3, 6, 9]).all()
    assert (ranked[:, 4:] == -1).all()
    ranker.save(tmp_path)
    again = load_sequence_ranker(tmp_path, candidates, "cpu")
    assert (again.rank(history, 6).items == ranked).all()


def test_a_model_of_a_grown_catalogue_scores_known_items_as_before() -> None:
    for causal in (True, False):
        before = model(causal=causal).eval()
        after = grown(before, NUM + 3).eval()
        history = torch.tensor([[1, 2, 3, 4, 5], [7, -1, -1, -1, -1]])
        scores = after.scores(after.next_hidden(history))
        assert scores.shape == (2, NUM + 3)
        torch.testing.assert_close(scores[:, :NUM], before.scores(before.next_hidden(history)))
        assert scores[:, NUM:].std() > 0, "new items start at random"
