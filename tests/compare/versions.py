"""What is compared, pinned: the first package of each is the one that the output names."""

from typing import Final

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "phoenix": (
        "arize-phoenix[pg]==20.26.1",
        "arize-phoenix-otel==0.17.2",
        "openinference-semantic-conventions==0.1.42",
        "psycopg[binary]==3.3.9",
    ),
    "mlflow": ("mlflow==3.17.2", "psycopg2-binary==2.9.13"),
    "litellm": ("litellm[proxy]==1.108.7", "prisma==0.15.0"),
    "tokenledger": ("tokenledger==0.1.1",),
}


def version_of(contender: str) -> str:
    """The pinned version of a contender's own package."""
    return PACKAGES[contender][0].partition("==")[2]
