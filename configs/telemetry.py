"""Keeps libraries from telling their makers that they are used: nothing phones home unasked."""

import os

# Read when the libraries are imported, so they are set before any is. What a user has set stands.
NO_TELEMETRY = {
    # TRL reports every trainer that is built to the Hugging Face hub.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Weights & Biases reports on itself, also when it is offline.
    "WANDB_ERROR_REPORTING": "false",
    # MLflow fetches at each start what it shall report, and reports it.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # What other libraries may heed (donottrack.sh), in the one spelling that all of them know.
    "DO_NOT_TRACK": "true",
}


def disable_telemetry() -> None:
    """Set `NO_TELEMETRY` in this process and for those that it starts."""
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
