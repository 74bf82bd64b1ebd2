"""Epsilon of every private row of README and docs/results.md: as promised, and between which bounds it really lies.

    python benchmarks/epsilon.py

The promise comes of Renyi differential privacy, as in every run. The bounds are those of privacy loss distributions
(Doroshenko et al., arXiv 2207.04380): the upper one is a proof, the lower one what the best possible attack on these
releases reaches (the likelihood ratio test on the noisy sums, with a device of full clipping norm against its absence).
The last column is the noise multiplier that would be enough by the upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from fedoel.server.accounting import Release, epsilon_of, multiplier_for

GRID = 1e-4  # of the discretised privacy loss


@dataclass(frozen=True)
class Row:
    """What a private run of the tables was planned with: its releases, each of a sample of the devices."""

    name: str
    epsilon: float
    delta: float = 1e-6
    sample: int = 100
    population: int = 1000
    releases: int = 3


ROWS = (
    *(Row(f"`experiment privacy`, epsilon {epsilon:g}", epsilon) for epsilon in (0.5, 1, 2, 4, 8)),
    Row("`simulate --scale private`; `private_trials.toml` with prompts", 2, releases=6),
    Row("`private_embedding.py`", 2, releases=4),
)


def bound(multiplier: float, probability: float, releases: int, delta: float, pessimistic: bool) -> float:
    """Return a bound of epsilon from above (pessimistic) or below."""
    one = from_gaussian_mechanism(
        multiplier,
        pessimistic_estimate=pessimistic,
        value_discretization_interval=GRID,
        use_connect_dots=pessimistic,  # it gives upper bounds only
        sampling_prob=probability,
    )
    return float(one.self_compose(releases).get_epsilon_for_delta(delta))


def enough(row: Row, multiplier: float) -> float:
    """Return the smallest noise multiplier that is proved to keep a row's promise, by bisection below the run's own."""
    low, high = multiplier / 2, multiplier
    while high - low > 0.001 * multiplier:
        middle = (low + high) / 2
        proved = bound(middle, row.sample / row.population, row.releases, row.delta, True) <= row.epsilon
        low, high = (low, middle) if proved else (middle, high)
    return high


def main() -> None:
    """Print the table."""
    print("| row | releases | noise multiplier | promised | at least | at most | server: promised, at least | enough |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        z = multiplier_for(row.epsilon, row.delta, row.sample, row.population, row.releases)
        share = row.sample / row.population
        low, high = (bound(z, share, row.releases, row.delta, worst) for worst in (False, True))
        server = epsilon_of(Release(z, row.population, row.population), row.releases, row.delta)
        server_low = bound(z, 1.0, row.releases, row.delta, False)
        known = " | ".join(f"{value:.2f}" for value in (z, row.epsilon, low, high))
        print(f"| {row.name} | {row.releases} | {known} | {server:.2f}, {server_low:.2f} | {enough(row, z):.2f} |")


if __name__ == "__main__":
    main()
