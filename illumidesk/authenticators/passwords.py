"""Passwords as the registry keeps them: Argon2id, at a cost that a class can pay at the same minute.

A check costs a tenth of what bcrypt's usual twelve rounds do, which two cores would need for every one of forty people
before the first of them is in. Hashes of bcrypt, of earlier versions, hold until their owner's next sign-in.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

#: Bytes of a password that are looked at. Nobody types so many, and nobody may have the hub hash a book.
MAX_PASSWORD = 1024
#: OWASP's Password Storage Cheat Sheet, Argon2id: 19 MiB of memory, two rounds, one thread.
_ARGON2 = PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
#: One for each processor: more would take memory and be no sooner done. Apart from the hub's other threads, which a
#: class that signs in would otherwise keep waiting.
_THREADS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="passwords")


async def hash_password(password: str) -> str:
    """A hash of it to keep, in the format that argon2 implementations share."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _ARGON2.hash, password)


async def check_password(password: str, stored: str) -> tuple[bool, str | None]:
    """Whether a hash is of this password.

    Args:
        password: as typed.
        stored: what `hash_password` gave, or bcrypt.

    Returns:
        whether it is, and a hash to keep instead where `stored` was made in an older way.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _check, password, stored)


def _check(password: str, stored: str) -> tuple[bool, str | None]:
    if stored.startswith("$2"):
        typed = password.encode()
        # bcrypt reads no more than 72 bytes, and newer releases refuse longer ones; a longer one was never kept.
        matches = bcrypt.checkpw(typed[:72], stored.encode()) and len(typed) <= 72
        return matches, _ARGON2.hash(password) if matches else None
    try:
        _ARGON2.verify(stored, password)
    except (VerifyMismatchError, InvalidHashError):
        return False, None
    return True, _ARGON2.hash(password) if _ARGON2.check_needs_rehash(stored) else None
