"""RQ-VAE: a residual quantizer inside an autoencoder (TIGER, section 3.1).

The encoder's output is quantized level by level, the decoder rebuilds the vector from the sum of
the codes' centroids. Gradients bypass the quantizer (straight-through estimator). Codebooks
begin as residual K-means of the untrained encoder's outputs; a code that an epoch did not use is
reset to a latent of that epoch's last batch, since it would otherwise get no gradient again.

Shapes: N items, Dv width of the vectors, L levels, K codes, Z latent width.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from onerec.config import TokenizerConfig
from onerec.tokenizer.clusterers import plain_kmeans
from onerec.tokenizer.distances import nearest

INIT_POINTS_PER_CODE = 64
"""Items per code that the initial codebooks are fitted to."""
LEARNING_RATE = 1e-3
"""Adam's."""
COMMITMENT = 0.25
"""Weight of the commitment loss, which pulls latents to their codes."""


def perceptron(weights: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    """Two linear layers with a ReLU between: `encoder` (N, Dv) to (N, Z), `decoder` back."""
    hidden = F.relu(F.linear(inputs, weights[f"{name}.in.weight"], weights[f"{name}.in.bias"]))
    return F.linear(hidden, weights[f"{name}.out.weight"], weights[f"{name}.out.bias"])


def straight_through(values: Tensor, gradient_of: Tensor) -> Tensor:
    """`values` forwards, the gradient of `gradient_of` backwards."""
    return gradient_of + (values - gradient_of).detach()


def fit_rqvae(
    vectors: Tensor,
    config: TokenizerConfig,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Train encoder, codebooks and decoder.

    Args:
        vectors: (N, Dv) float32.
        config: Levels, codes, and the settings `rqvae_*`.
        on_progress: Called with messages about every tenth epoch.

    Returns:
        (L, K, Z) codebooks, and the weights of encoder and decoder.
    """
    generator = torch.Generator().manual_seed(config.seed)
    weights = _initial_weights(vectors.shape[1], config, generator)
    sample = torch.randperm(len(vectors), generator=generator)
    sample = sample[: INIT_POINTS_PER_CODE * config.codebook_size]
    codebooks = _initial_codebooks(perceptron(weights, "encoder", vectors[sample]), config)
    parameters = [codebooks, *weights.values()]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    for epoch in range(config.rqvae_epochs):
        used = torch.zeros(codebooks.shape[:2], dtype=torch.bool)
        residuals: list[Tensor] = []
        last_loss = 0.0
        for rows in torch.randperm(len(vectors), generator=generator).split(
            config.rqvae_batch_size
        ):
            loss, codes, residuals = _loss(vectors[rows], codebooks, weights, COMMITMENT)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            last_loss = loss.item()
            for level, chosen in enumerate(codes):
                used[level, chosen] = True
        if epoch < config.rqvae_epochs - 1:  # a code reset after the last epoch stays untrained
            revive_dead_codes(codebooks, used, residuals, generator)
        if (epoch + 1) % 10 == 0:
            on_progress(
                f"RQ-VAE: {epoch + 1} epochs, loss {last_loss:.4f}, "
                f"{used.float().mean().item():.0%} of the codes used"
            )
    return codebooks.detach(), {name: weight.detach() for name, weight in weights.items()}


@torch.no_grad()
def revive_dead_codes(
    codebooks: Tensor, used: Tensor, residuals: list[Tensor], generator: torch.Generator
) -> None:
    """Reset every unused code to a random residual of its level, in place.

    Args:
        codebooks: (L, K, Z).
        used: (L, K) bool.
        residuals: Per level (B, Z), the inputs of the level's quantizer.
        generator: Random numbers for the choice.
    """
    for level, inputs in enumerate(residuals):
        dead = (~used[level]).nonzero()[:, 0]
        drawn = torch.randint(len(inputs), (len(dead),), generator=generator)
        codebooks[level, dead] = inputs[drawn]


def _loss(
    inputs: Tensor, codebooks: Tensor, weights: Mapping[str, Tensor], commitment: float
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Reconstruction plus quantization; codes (B,) and residuals (B, Z) per level."""
    latent = perceptron(weights, "encoder", inputs)
    residual, total = latent, torch.zeros_like(latent)
    quantization, codes, residuals = inputs.new_zeros(()), [], []
    for centroids in codebooks:
        code = nearest(residual.detach(), centroids.detach())
        chosen = centroids[code]
        quantization = quantization + (residual.detach() - chosen).square().sum(1).mean()
        quantization = (
            quantization + commitment * (residual - chosen.detach()).square().sum(1).mean()
        )
        codes.append(code)
        residuals.append(residual.detach())
        residual = residual - chosen.detach()
        total = total + chosen
    rebuilt = perceptron(weights, "decoder", straight_through(total, latent))
    return (rebuilt - inputs).square().sum(1).mean() + quantization, codes, residuals


def _initial_weights(
    width: int, config: TokenizerConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """He initialisation: the variance of a layer's outputs is that of its inputs."""
    hidden, latent = config.rqvae_hidden_dim, config.rqvae_latent_dim
    shapes = {
        "encoder.in": (hidden, width),
        "encoder.out": (latent, hidden),
        "decoder.in": (hidden, latent),
        "decoder.out": (width, hidden),
    }
    weights: dict[str, Tensor] = {}
    for name, (rows, columns) in shapes.items():
        scale = (2 / columns) ** 0.5
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) * scale
        weights[f"{name}.bias"] = torch.zeros(rows)
    return weights


def _initial_codebooks(latents: Tensor, config: TokenizerConfig) -> Tensor:
    """(L, K, Z): residual K-means of the untrained encoder's outputs."""
    residual, codebooks = latents, []
    for level in range(config.num_levels):
        found = plain_kmeans(
            residual,
            config.codebook_size,
            iterations=10,
            generator=torch.Generator().manual_seed(config.seed + level),
        )
        codebooks.append(found.centroids)
        residual = residual - found.centroids[found.labels]
    return torch.stack(codebooks)
