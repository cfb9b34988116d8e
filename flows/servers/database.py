"""The PostgreSQL that Prefect's server keeps its runs in: it has to answer and be new enough."""

import asyncio

from flows.servers.commands import DATABASE
from vlm_ops.errors import ServiceError

OLDEST = (14, 9)
"""Source: Prefect's documentation, "How to scale self-hosted Prefect". MLflow's names none."""


def refuse_unfit(address: str) -> None:
    """Refuse a PostgreSQL that does not answer, or is too old, before a server is started on it.

    Raises:
        ServiceError: It is such a one. What else may be, Prefect's server says.
    """
    if not address.startswith("postgresql+asyncpg:"):
        return
    try:
        version = asyncio.run(_version(address))
    except OSError as error:
        raise ServiceError(
            f"the database of Prefect's server that {DATABASE} names does not answer: "
            f"{error or type(error).__name__}. Start PostgreSQL, or put the address right; without "
            f"that variable the server has a database in the runs folder"
        ) from error
    except Exception:
        return
    refuse_old(version)


def refuse_old(version: tuple[int, ...]) -> None:
    """Refuse a version of PostgreSQL that Prefect's server is not made for."""
    if version < OLDEST:
        found, expected = (".".join(map(str, one)) for one in (version, OLDEST))
        raise ServiceError(
            f"the database of Prefect's server that {DATABASE} names: found PostgreSQL {found}, "
            f"expected {expected} or newer, which Prefect asks for. A newer minor version is put "
            f"in its place, a newer major one is a dump and a restore (docs/operations.md)"
        )


async def _version(address: str) -> tuple[int, ...]:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(address, connect_args={"timeout": 10}, poolclass=NullPool)
    async with engine.connect():
        return tuple(engine.dialect.server_version_info or OLDEST)
