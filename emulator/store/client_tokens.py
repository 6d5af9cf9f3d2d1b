"""Client tokens, by which a repeated request has no second effect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select

from emulator.store.schema import client_tokens
from emulator.store.statements import UNLESS_THERE, Statement, Transaction
from emulator.trajectory import TokenReused

#: A client token of more characters is kept as its digest.
LONGEST = 256

_FIND = Statement(
    select(client_tokens.c.parameters).where(
        client_tokens.c.operation == bindparam("operation"),
        client_tokens.c.job_arn == bindparam("job_arn"),
        client_tokens.c.token == bindparam("token"),
    )
)

_KEEP = Statement(insert(client_tokens), UNLESS_THERE)


@dataclass(frozen=True, slots=True)
class TokenUse:
    """One request's client token as it is kept, with the digest of the parameters that came with it."""

    operation: str
    job_arn: str
    token: str | None
    parameters: str

    def was_seen(self, transaction: Transaction) -> bool:
        """Whether the request is a repeated one. Raises TokenReused."""
        # ASSUMED: with the same parameters a token repeats, with others it conflicts; it is kept with its trajectory.
        if self.token is None:
            return False
        known = transaction.row(_FIND, operation=self.operation, job_arn=self.job_arn, token=self.token)
        if known is not None and known[0] != self.parameters:
            raise TokenReused(self.token)
        return known is not None

    def remember(self, transaction: Transaction, trajectory: int) -> None:
        """Keep it as long as its trajectory. Raises TokenReused, having written nothing."""
        if self.token is None:
            return
        kept = transaction.run(
            _KEEP,
            operation=self.operation,
            job_arn=self.job_arn,
            token=self.token,
            parameters=self.parameters,
            trajectory=trajectory,
        )
        if not kept:  # another server was faster, for another trajectory: this one is locked
            raise TokenReused(self.token)


def token_use(operation: str, job_arn: str, token: str | None, *parameters: object) -> TokenUse:
    """The use of a client token, if the request has one; `parameters` are the others, those that JSON knows."""
    if token is not None and len(token) > LONGEST:  # it would not fit into PostgreSQL's index
        token = f"sha256:{_digest(token)}"
    return TokenUse(operation, job_arn, token, _digest(*parameters))


def _digest(*parameters: object) -> str:
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()
