"""Keys come from the environment, never from a file."""

import os

from configs.errors import UserError


def read_key(variable: str, *, where: str = "evaluation.baseline.api_key_env") -> str:
    """The key in an environment variable, or a `UserError` that names the variable.

    where: the field of the configuration that asks for it.
    """
    key = os.environ.get(variable)
    if not key:
        raise UserError(
            f"the environment variable {variable} is not set",
            where=where,
            remedy=f"export {variable}=… with a key of the hosted service",
        )
    return key
