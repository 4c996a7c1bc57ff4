"""How each system of the Amazon Beauty table learns and is asked; all by one protocol.

Everything expensive is kept in the run's directory, so that a killed run goes on: the titles'
vectors, semantic IDs, and the state of a training after every epoch. Test users are asked once,
after everything has been chosen on validation users.

Shapes: U users, N items, H history items, T digits, W windows.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from onerec.artifacts import read_json, write_json
from onerec.config import ModelConfig, TokenizerConfig
from onerec.datasets.amazon import HISTORY_LENGTH, AmazonReviews, Questions
from onerec.embeddings.collaborative import collaborative_vectors
from onerec.embeddings.reduction import principal_components, ridge
from onerec.embeddings.text import encode_minilm, item_texts
from onerec.evaluation.baselines import Ranker, fit_item_knn, fit_popularity
from onerec.evaluation.baselines.loop import Plan, alike_batches, fit_epochs
from onerec.evaluation.baselines.sequence_training import NextItem
from onerec.evaluation.baselines.sequences import cut_windows
from onerec.evaluation.baselines.tiger import TigerRanker, places_loss, tiger_shape
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.interactions import Interactions
from onerec.evaluation.metrics import per_case_metrics
from onerec.experiments.beauty_model import DenseOneRec, DenseRanker, candidates_of
from onerec.model import OneRec
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.semantic_ids import assign_semantic_ids

CUTOFFS = (5, 10)
TOP_K = max(CUTOFFS)
DENSE_SHARES = tuple(round(0.1 * step, 1) for step in range(11))
"""Mixtures of generator and dense head, of which validation chooses one."""
ASKED_AT_ONCE = 4096
CODES, LEVELS = 256, 3
TEXT_WIDTH, SHARED_WIDTH, RIDGE = 128, 64, 0.05
TRUST = 5.0
"""Users an item needs before its co-occurrences count as much as what its text predicts."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a system may spend, and its shape. Chosen on validation users, never on test users.

    Attributes:
        epochs: Passes over all sequences; the rate falls to zero over them.
        width: D.
        layers: Blocks of the encoder, and as many of the decoder.
        heads: Attention heads.
        dropout: Dropout.
        learning_rate: Peak.
        weight_decay: AdamW's.
        places: Items of a step.
        crop_share: Of the sequences that begin at a random item, so that every contiguous
            sub-sequence is a history some time.
        valid_users: Users asked after every epoch.
        beam: Beams of a generator.
        warmup_steps: Of a linear warm-up.
    """

    epochs: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    places: int = 512
    crop_share: float = 0.5
    valid_users: int = 1000
    beam: int = 50
    warmup_steps: int = 200

    def plan(self) -> Plan:
        return Plan(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=None,
            warmup_steps=self.warmup_steps,
            cosine=True,
        )


BUDGETS: dict[str, Budget] = {
    "sasrec_ce": Budget(
        epochs=25, heads=2, dropout=0.4, places=1024, crop_share=0.0, valid_users=100_000
    ),
    "tiger": Budget(epochs=25, layers=3, dropout=0.1, learning_rate=2e-3),
    "onerec": Budget(epochs=20, dropout=0.3, valid_users=100_000),
}
"""Sized for one core each: SASRec 25 minutes, TIGER and OneRec 45."""


@dataclass(frozen=True)
class Bench:
    """What all systems share in a run.

    Attributes:
        reviews: The data.
        directory: Of the run; everything kept is here.
        seed: Of weights and orders.
        say: Told about progress, a line at a time.
    """

    reviews: AmazonReviews
    directory: Path
    seed: int
    say: Callable[[str], None]

    def windows(self) -> Tensor:
        """(W, H + 1) all that may be learned from, in windows that share one item."""
        items, users = self.reviews.learned()
        return torch.from_numpy(cut_windows(items, users, HISTORY_LENGTH + 1)).long()

    def some_valid(self, users: int) -> Questions:
        """A seeded sample of the validation questions."""
        asked = self.reviews.questions("valid")
        rows = np.random.default_rng(0).permutation(len(asked.targets))[:users]
        return Questions(asked.history[rows], asked.targets[rows])

    def state_file(self, system: str) -> Path:
        return self.directory / "states" / f"{system}-{self.seed}.safetensors"

    def on_epoch(self, system: str) -> Callable[[dict[str, float]], None]:
        """Says the numbers of every epoch on one line."""

        def say(numbers: dict[str, float]) -> None:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self.say(f"{system}: {shown}")

        return say


@dataclass(frozen=True)
class Measured:
    """What the test users got from one system.

    Attributes:
        values: Metric -> (U,).
        seconds: Making it, without asking.
        facts: What was chosen and how training went.
    """

    values: Mapping[str, np.ndarray]
    seconds: float
    facts: Mapping[str, object]

    def save(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        values = {key: np.ascontiguousarray(value) for key, value in self.values.items()}
        save_file(values, directory / f"{name}.safetensors")
        write_json(directory / f"{name}.json", {"seconds": self.seconds, "facts": dict(self.facts)})


def load_measured(directory: Path, name: str) -> Measured | None:
    """Read what `Measured.save` wrote; None where there is nothing."""
    if not (directory / f"{name}.json").exists():
        return None
    stored = read_json(directory / f"{name}.json")
    values = load_file(directory / f"{name}.safetensors")
    return Measured(values, stored["seconds"], stored["facts"])


def metrics_of(ranked: np.ndarray, asked: Questions) -> dict[str, np.ndarray]:
    """Recall and NDCG of every user at both cutoffs."""
    found = per_case_metrics(ranked, asked.targets, CUTOFFS)
    return {k: v for k, v in found.items() if k.startswith(("recall", "ndcg"))}


def means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}


def cropped(windows: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Let some windows (B, L) begin at a random item; at least two items stay."""
    count = (windows >= 0).sum(1)
    start = (torch.rand(len(windows), generator=draws) * (count - 1)).long()
    start = start * (torch.rand(len(windows), generator=draws) < share)
    place = torch.arange(windows.shape[1]) + start[:, None]
    moved = windows.gather(1, place.clamp(max=windows.shape[1] - 1))
    return moved.masked_fill(place >= count[:, None], -1)


# ---------------------------------------------------------------- items


def text_vectors(bench: Bench) -> np.ndarray:
    """(N, 384) MiniLM's vectors of title, brand and categories; kept."""
    file = bench.directory / "text.safetensors"
    if not file.exists():
        table = pa.table(
            {
                "title": pa.array(bench.reviews.titles, pa.string()),
                "category": pa.array(
                    [a.replace("|", ", ") for a in bench.reviews.attributes], pa.string()
                ),
            }
        )
        save_file({"text": encode_minilm(item_texts(table), bench.say)}, file)
    return load_file(file)["text"]


def item_vectors(bench: Bench) -> np.ndarray:
    """(N, 192) unit vectors of text and of what users chose together, from training items alone.

    What an item's text predicts stands in where few or no users chose it; as in the nightly
    embeddings.
    """
    text = text_vectors(bench).astype(np.float64)
    everything = np.ones(len(text), dtype=bool)
    mean, axes = principal_components(text, everything, TEXT_WIDTH)
    content = (text - mean) @ axes.T
    content /= np.sqrt(np.square(content).sum(1).mean())
    items, users = bench.reviews.learned()
    shape = (bench.reviews.num_users, bench.reviews.num_items)
    chosen = sp.csr_array((np.ones(len(items)), (users, items)), shape=shape)
    pairs = sp.csr_array(chosen.T @ chosen)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    shared = collaborative_vectors(pairs, SHARED_WIDTH, bench.seed)
    observed = np.abs(shared).sum(1) > 0
    watched = np.bincount(items, minlength=len(text))
    trust = np.where(observed, watched / (watched + TRUST), 0.0)[:, None]
    root = np.sqrt(trust[observed])
    weights = ridge(content[observed] * root, shared[observed] * root, RIDGE * observed.sum())
    mixed = trust * shared + (1 - trust) * (content @ weights)
    fused = np.concatenate([content, mixed], 1)
    return (fused / np.linalg.norm(fused, axis=1, keepdims=True)).astype(np.float32)


def semantic_ids_of(
    bench: Bench, name: str, vectors: np.ndarray, config: TokenizerConfig
) -> Tensor:
    """(N, T) unique IDs; kept. Titles of all items are known before anyone is asked."""
    file = bench.directory / f"ids-{name}-{bench.seed}.safetensors"
    if not file.exists():
        table = torch.from_numpy(vectors)
        book, codes = fit_codebook(table, config, on_progress=bench.say)
        count = len(vectors)
        ids = assign_semantic_ids(
            book,
            codes,
            table,
            np.arange(count).astype(str).astype(object),
            np.full(count, np.datetime64("2014-07-01", "D")),
        )
        save_file({"codes": ids.codes.numpy()}, file)
    return torch.from_numpy(load_file(file)["codes"])


# ---------------------------------------------------------------- systems


def popularity(bench: Bench, budget: Budget | None = None) -> dict[str, Measured]:
    """The items most users chose."""
    return {"popularity": _counted(bench, lambda log, all_: fit_popularity(log, all_))}


def item_knn(bench: Bench, budget: Budget | None = None) -> dict[str, Measured]:
    """Cosine of the items' sets of users, 50 neighbours."""
    return {"itemknn": _counted(bench, lambda log, all_: fit_item_knn(log, all_, neighbours=50))}


def sasrec_ce(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """SASRec with a softmax over the whole catalogue."""
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        shape = SequenceShape(
            num_items=bench.reviews.num_items,
            length=HISTORY_LENGTH,
            width=budget.width,
            layers=budget.layers,
            heads=budget.heads,
            dropout=budget.dropout,
        )
        model = SequenceModel(shape)
        ranker = SequenceRanker(model, np.ones(shape.num_items, dtype=bool))
        loss = NextItem()
        facts, seconds = _train(
            bench,
            "sasrec_ce",
            model,
            budget,
            windows,
            lambda rows, draws: loss(model, rows, draws),
            lambda asked: ranker.rank(asked.history, top_k=TOP_K),
        )
    return {"sasrec_ce": _asked(bench, ranker, seconds, facts)}


def tiger(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """TIGER: RQ-VAE on text alone, digits read and written, one item at a time."""
    config = TokenizerConfig(
        method="rqvae",
        num_levels=LEVELS,
        codebook_size=CODES,
        seed=bench.seed,
        rqvae_hidden_dim=256,
        rqvae_epochs=200,
        rqvae_batch_size=1024,
    )
    codes = semantic_ids_of(bench, "tiger", text_vectors(bench), config)
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        model = OneRec(
            tiger_shape(
                budget.width, layers=budget.layers, heads=budget.heads, dropout=budget.dropout
            ),
            codebook_size=CODES,
            num_digits=LEVELS + 1,
            history_length=HISTORY_LENGTH,
            session_items=1,
        )
        ranker = TigerRanker(model, codes, np.ones(len(codes), dtype=bool))
        facts, seconds = _train(
            bench,
            "tiger",
            model,
            budget,
            windows,
            lambda rows, draws: places_loss(model, rows, codes, first=1),
            lambda asked: ranker.rank(asked.history, top_k=TOP_K),
        )
    return {"tiger": _asked(bench, ranker, seconds, facts, beam=budget.beam)}


def onerec(bench: Bench, budget: Budget) -> dict[str, Measured]:
    """OneRec with balanced IDs of text and co-occurrence, and the same with its dense head."""
    vectors = item_vectors(bench)
    config = TokenizerConfig(num_levels=LEVELS, codebook_size=CODES, seed=bench.seed)
    codes = semantic_ids_of(bench, "onerec", vectors, config)
    windows = bench.windows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        shape = ModelConfig(
            d_model=budget.width,
            num_heads=budget.heads,
            d_ff=3 * budget.width,
            encoder_layers=budget.layers,
            decoder_layers=budget.layers,
            num_experts=1,
            active_experts=1,
            dropout=budget.dropout,
            causal_encoder=True,
        )
        model = DenseOneRec(
            shape, codes, CODES, torch.from_numpy(vectors), history_length=HISTORY_LENGTH
        )
        ranker = DenseRanker(model)
        facts, seconds = _train(
            bench,
            "onerec",
            model,
            budget,
            windows,
            lambda rows, draws: model.loss(rows),
            lambda asked: ranker.rank(asked.history, top_k=TOP_K),
            also=lambda: _heads(model, bench.some_valid(500), budget.beam),
        )
    beam = budget.beam
    valid = bench.some_valid(3000)
    found = candidates_of(model, valid.history, beam=beam, dense=beam)
    by_share = {
        share: means(metrics_of(found.fused(share, TOP_K), valid)) for share in DENSE_SHARES
    }
    best = max(DENSE_SHARES, key=lambda share: by_share[share]["ndcg@10"])
    bench.say(f"onerec: dense share {best} chosen on validation, {by_share[best]}")
    test = bench.reviews.questions("test")

    def on_progress(users: int) -> None:
        if users % 4096 == 0:
            bench.say(f"onerec: {users} of {len(test.targets)} test users asked")

    found = candidates_of(model, test.history, beam=beam, dense=beam, on_progress=on_progress)
    chosen = {"dense share": best, "validation by dense share": by_share}
    return {
        "onerec": Measured(metrics_of(found.generated(TOP_K), test), seconds, facts),
        "onerec_dense": Measured(
            metrics_of(found.fused(best, TOP_K), test), seconds, {**facts, **chosen}
        ),
        "onerec_dense_alone": Measured(metrics_of(found.fused(1.0, TOP_K), test), seconds, facts),
    }


SYSTEMS: dict[str, Callable[..., dict[str, Measured]]] = {
    "popularity": popularity,
    "itemknn": item_knn,
    "sasrec_ce": sasrec_ce,
    "tiger": tiger,
    "onerec": onerec,
}
"""Name on the command line -> what makes and asks it. OneRec gives several rows."""


def _heads(model: DenseOneRec, asked: Questions, beam: int) -> dict[str, float]:
    """Recall@10 of the beams alone and of an even mixture on a few users: to look at, no more."""
    found = candidates_of(model, asked.history, beam=beam, dense=beam)
    lists = {"beams' recall@10": found.generated(TOP_K), "mixed recall@10": found.fused(0.5, TOP_K)}
    return {name: means(metrics_of(ranked, asked))["recall@10"] for name, ranked in lists.items()}


def _counted(bench: Bench, fit: Callable[[Interactions, np.ndarray], Ranker]) -> Measured:
    began = time.perf_counter()
    items, users = bench.reviews.learned()
    nothing = np.zeros(0, dtype=np.int64)
    log = Interactions(
        num_items=bench.reviews.num_items,
        user=users,
        item=items,
        age=np.ones(len(items), dtype=np.int64),
        is_watched=np.ones(len(items), dtype=bool),
        past_user=nothing,
        past_item=nothing,
        user_ids=np.arange(bench.reviews.num_users),
    )
    ranker = fit(log, np.ones(bench.reviews.num_items, dtype=bool))
    return _asked(bench, ranker, time.perf_counter() - began, {})


def _asked(
    bench: Bench, ranker: Ranker, seconds: float, facts: Mapping[str, object], **settings: int
) -> Measured:
    """Ask the test users, once."""
    test = bench.reviews.questions("test")
    top_k, lists = max(TOP_K, settings.get("beam", 0)), []
    for start in range(0, len(test.targets), ASKED_AT_ONCE):
        part = test.history[start : start + ASKED_AT_ONCE]
        lists.append(ranker.rank(part, top_k=top_k)[:, :TOP_K])
        bench.say(f"{start + len(part)} of {len(test.targets)} test users asked")
    return Measured(metrics_of(np.concatenate(lists), test), seconds, facts)


def _train(
    bench: Bench,
    name: str,
    model: torch.nn.Module,
    budget: Budget,
    windows: Tensor,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    rank: Callable[[Questions], np.ndarray],
    also: Callable[[], dict[str, float]] = dict,
) -> tuple[dict[str, object], float]:
    """Train within the budget; what to report of it, and its seconds without validation."""
    lengths = (windows >= 0).sum(1)
    valid = bench.some_valid(budget.valid_users)
    progress = fit_epochs(
        model,
        lambda rows, draws: loss(cropped(windows[rows], budget.crop_share, draws), draws),
        lambda draws: alike_batches(lengths, budget.places, draws),
        budget.plan(),
        seed=bench.seed,
        score=lambda: means(metrics_of(rank(valid), valid)) | also(),
        on_epoch=bench.on_epoch(name),
        state=bench.state_file(name),
    )
    facts = {
        "budget": asdict(budget),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best epoch": progress.best_epoch,
        "epochs": progress.log,
    }
    return facts, progress.seconds
