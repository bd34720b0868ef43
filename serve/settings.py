"""What a server process is told to serve: the one file that `serve.server` reads."""

from typing import Self

from pydantic import Field, model_validator

from configs.section import LocalPath, Section
from configs.serve_schema import ServeConfig


class ServedVariant(Section):
    """What a run has made that can be served."""

    name: str
    """Model name that requests give."""
    description: str | None = None
    """What it is for, in the models list."""
    artefact: LocalPath | None = None
    """The merged variant: a GGUF for llama.cpp, a folder for vLLM."""
    adapter: LocalPath | None = None
    """The adapter by itself, in the engine's own form."""


class ServerSettings(Section):
    """One server process."""

    variants: list[ServedVariant] = Field(min_length=1)
    """The variants. One alone is served merged; several as adapters on `base`, which is loaded
    once."""
    base_name: str | None = None
    """Model name of the untuned base."""
    base: LocalPath | None = None
    """The untuned base: a GGUF, or a folder."""
    mmproj: LocalPath | None = None
    """GGUF of the vision tower that all of them share; no images are taken without it."""
    serve: ServeConfig = ServeConfig()
    """How they are served; routes and aliases are the first variant's."""
    runs: list[LocalPath] = Field(default=[])
    """Run directories of the variants; the workbench shows them, and those beside the first."""
    folder: LocalPath | None = None
    """Where engines log (`engine-*.log`) and shadowed requests are recorded; nowhere when absent.
    """

    @model_validator(mode="after")
    def _check_files_given(self) -> Self:
        if (self.base is None) != (self.base_name is None):
            raise ValueError("base and base_name go together")
        self._check_names()
        if self.is_shared:
            if self.base is None:
                raise ValueError("several variants share a base: say which in base")
            lacking = [variant.name for variant in self.variants if variant.adapter is None]
            if lacking:
                raise ValueError(f"variants: {lacking[0]} has no adapter to load on the base")
        elif self.variants[0].artefact is None:
            raise ValueError(f"variants: {self.variants[0].name} has no artefact to serve")
        return self

    def _check_names(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("variants: two have the same name")
        if self.base_name in names:
            raise ValueError(f"base_name: a variant is called {self.base_name} as well")
        for alias in self.serve.aliases:
            if alias == self.base_name or alias in names[1:]:
                raise ValueError(f"serve.aliases: {alias} is a model's own name")

    @property
    def is_shared(self) -> bool:
        """Whether several variants are adapters on one base."""
        return len(self.variants) > 1
