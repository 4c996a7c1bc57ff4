"""KL and legality by enumeration."""

import pytest
import torch

from onerec.alignment.policy_diagnostics import kl_per_token, legal_mass, token_distributions
from onerec.generation import Trie
from onerec.model import session_logp
from tests.core.alignment.world import CATALOGUE, CODES, TRIE, generator

HISTORY = torch.tensor([[1, 2, -1], [7, 8, 9]])
SESSIONS = torch.tensor([[[0, 1, 2], [3, 9, 20]], [[5, 6, 7], [11, 12, -1]]])


def test_distributions_are_those_of_session_logp():
    model = generator()
    logp, mask = token_distributions(model, HISTORY, SESSIONS, CATALOGUE)
    assert torch.allclose(logp.exp().sum(-1), torch.ones(logp.shape[:-1]))
    chosen = logp.gather(-1, CATALOGUE[SESSIONS.clamp(min=0)].unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        expected = session_logp(model, HISTORY, SESSIONS, CATALOGUE)
    torch.testing.assert_close((chosen.sum(-1) * mask).sum(-1), expected)


def test_kl_by_its_definition_and_padding_left_out():
    policy, mask = token_distributions(generator(0), HISTORY, SESSIONS, CATALOGUE)
    start, _ = token_distributions(generator(1), HISTORY, SESSIONS, CATALOGUE)
    found = kl_per_token(policy, start, mask)
    for user in range(2):
        p, q = policy[user][mask[user]], start[user][mask[user]]  # (items, T, C)
        each = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
        )
        assert float(found[user]) == pytest.approx(float(each.mean()), rel=1e-5)
    assert kl_per_token(policy, policy, mask).tolist() == [0.0, 0.0]


def test_legal_mass_is_the_probability_of_ending_at_an_item():
    """A one-token catalogue: the mass on its codes, by hand. Two tokens: a product of two sums."""
    logp = torch.log(torch.tensor([[[[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]]]]))  # (1, 1, 1, 2, 3)
    codes = torch.tensor([[0, 0], [0, 2], [1, 1]])
    trie = Trie.build(codes, 3)
    # item 1 = (0, 2): codes 0 and 1 open an item (.8); after 0 come 0 and 2 (.1 + .7)
    assert float(legal_mass(logp, torch.tensor([[[1]]]), trie)) == pytest.approx(0.8 * 0.8)
    # item 2 = (1, 1): after 1 comes 1 alone (.2)
    assert float(legal_mass(logp, torch.tensor([[[2]]]), trie)) == pytest.approx(0.8 * 0.2)
    both = torch.cat([logp, logp], 2)
    items = torch.tensor([[[1, 2]]])
    assert float(legal_mass(both, items, trie)) == pytest.approx((0.64 + 0.16) / 2)
    padded = torch.tensor([[[1, -1]]])
    assert float(legal_mass(both, padded, trie)) == pytest.approx(0.64)


def test_all_mass_is_legal_where_every_code_is():
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    logp = torch.randn(1, 1, 3, 2, 2).log_softmax(-1)
    mass = legal_mass(logp, torch.tensor([[[0, 1, 3]]]), Trie.build(codes, 2))
    assert float(mass) == pytest.approx(1.0)
    model_logp, _ = token_distributions(generator(), HISTORY, SESSIONS, CATALOGUE)
    assert bool((legal_mass(model_logp, SESSIONS, TRIE) < 1).all())  # world: 3 of 6 second tokens
    assert CODES == 6
