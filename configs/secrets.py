"""Keys come from the environment, never from a file."""

import os

from configs.errors import UserError


def read_key(variable: str) -> str:
    """The key in an environment variable, or a `UserError` that names the variable."""
    key = os.environ.get(variable)
    if not key:
        raise UserError(
            f"the environment variable {variable} is not set",
            where="evaluation.baseline.api_key_env",
            remedy=f"export {variable}=… with a key of the hosted service",
        )
    return key
