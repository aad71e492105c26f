"""What Prometheus may ask of a server; a registry of its own, so that two servers in a process do not mix."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from colossi.serve.batch import Batch, Piece

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "colossi_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.tokens = Counter("colossi_tokens", "Tokens computed.", ["kind"], registry=registry)
        self.near_ties = Counter(
            "colossi_near_ties",
            "Greedy tokens that rounding could decide: settled by the plain model, or left.",
            ["outcome"],
            registry=registry,
        )
        self.first_token = Histogram(
            "colossi_first_token_seconds",
            "From a request's arrival to its first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "colossi_batch_sequences", "Sequences in a step.", buckets=ROWS, registry=registry
        )
        self.running = Gauge("colossi_running", "Answers that are being computed.", registry=registry)
        self.waiting = Gauge("colossi_waiting", "Answers that wait for room.", registry=registry)
        self.pages = Gauge("colossi_pages", "Pages of the cache.", ["state"], registry=registry)

    def step(self, pieces: Sequence[Piece], batch: Batch) -> None:
        """Note what a step computed and what there is after it."""
        said = sum(piece.speaks for piece in pieces)
        self.tokens.labels("said").inc(said)
        self.tokens.labels("read").inc(sum(piece.stop - piece.start for piece in pieces) - said)
        self.batch_rows.observe(len(pieces))
        self.count(batch)

    def count(self, batch: Batch) -> None:
        """How many run, wait and are stored."""
        pages = batch.pages
        self.running.set(len(batch.running))
        self.waiting.set(len(batch.waiting))
        self.pages.labels("used").set(pages.count - pages.free)
        self.pages.labels("kept").set(pages.kept)
        self.pages.labels("empty").set(pages.free - pages.kept)
