"""A plan as a person reads it, and as a program does."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from train.plan.advice import Device
from train.plan.build import Change, Plan
from train.plan.memory import GIB, Part
from train.plan.speed import REACHED_SHARE

PART_NAMES: dict[Part, str] = {
    "weights_nf4": "weights in NF4",
    "weights_bf16": "weights in bf16",
    "lora": "LoRA",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "loss_tile": "loss tile",
    "dequantization_buffer": "dequantization buffer",
    "allocator_slack": "allocator slack",
    "cuda_context": "CUDA context",
    "process": "interpreter, libraries",
}
# The stage that first writes each thing, and what it is.
DISK_NAMES = {
    "download": ("train", "weights, cached"),
    "nf4_checkpoint": ("train", "NF4 checkpoint, cached"),
    "checkpoints": ("train", "checkpoints"),
    "adapter": ("train", "adapter"),
    "merged": ("merge", "merged weights"),
    "artefacts": ("merge", "artefacts"),
    "conversion": ("merge", "while converting"),
}
DEVICE_NAMES: dict[Device, str] = {"cuda": "a card", "cpu": "a machine without a card"}
BAR_WIDTH = 24
SMALLEST_SHOWN = 0.005


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain values. Sizes in GiB, null where something is not known or does not fit a card."""
    speeds = plan.speeds if plan.device == "cuda" else []
    return {
        "name": plan.name,
        "model": plan.model,
        "architecture_source": plan.source,
        "device": plan.device,
        "fits": plan.fits,
        "budget_gib": plan.budget,
        "peak_gib": plan.memory.peak / GIB,
        "peak_in": plan.memory.peak_in,
        "breakdown": {part: size / GIB for part, size in plan.memory.parts.items()},
        "pinned_host_gib": round(plan.memory.pinned / GIB, 3),
        "max_length": plan.max_length,
        "max_length_with_reliefs": plan.max_length_relieved,
        "max_micro_batch_rows": plan.most_rows,
        "num_tokens": plan.num_tokens,
        "tokens_per_second": {
            speed.card.name: round(speed.estimate, 1) if plan.runs_on(speed) else None
            for speed in speeds
        },
        "hours": {
            speed.card.name: plan.hours(speed) if plan.runs_on(speed) else None for speed in speeds
        },
        "unknown": plan.unknown,
        "disk_gib": {name: round(size, 3) for name, size in plan.disk.items()},
        "changes": [change._asdict() for change in plan.changes],
        "notes": plan.notes,
    }


def print_plan(plan: Plan, console: Console) -> None:
    """Verdict, parts, lengths, what to change where it does not fit, cards and disk."""
    console.print(_verdict(plan))
    console.print(f"[dim]{plan.model}; its architecture from {plan.source}[/]")
    for block in (_parts(plan), *_more(plan)):
        console.print()
        console.print(block)
    console.print()
    for note in plan.notes:
        console.print(f"[dim]- {note}[/]")


def _more(plan: Plan) -> Iterator[Table | str]:
    yield "\n".join(_lengths(plan))
    if not plan.fits:
        yield _changes(plan)
        yield _hardest(plan)
    if plan.device == "cuda":
        yield _cards(plan)
        told = f"[dim]tokens/s: {REACHED_SHARE:.0%} of the ceiling: assumed, not measured[/]"
        yield told if plan.num_tokens is not None else f"{told}\nhours: {plan.unknown}"
    yield _disk(plan)


def _verdict(plan: Plan) -> str:
    peak = plan.memory.peak / GIB
    colour, word = ("green", "fits") if plan.fits else ("red", "does not fit")
    return (
        f"[bold {colour}]{plan.name} {word}[/]: {peak:.1f} of {plan.budget:.1f} GiB of "
        f"{DEVICE_NAMES[plan.device]}\nthe peak comes in: {plan.memory.peak_in}"
    )


def _hardest(plan: Plan) -> str:
    best = min(change.peak for change in plan.changes)
    if best <= plan.budget:
        return "[dim]each change is made on top of those above it[/]"
    return f"[red]nothing here is enough: even then it needs {best:.1f} GiB[/]"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _parts(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("at the peak")
    table.add_column("GiB", justify="right")
    table.add_column()
    scale = max(plan.budget, plan.memory.peak / GIB)
    for part, size in plan.memory.parts.items():
        gib = size / GIB
        if gib >= SMALLEST_SHOWN:
            bar = "█" * round(BAR_WIDTH * gib / scale)
            table.add_row(PART_NAMES[part], f"{gib:.2f}", f"[cyan]{bar}[/]")
    return table


def _lengths(plan: Plan) -> Iterator[str]:
    limit, length = plan.architecture.max_positions, plan.config.model.max_length
    longest, relieved = (
        f"{n:,}" if n else "none" for n in (plan.max_length, plan.max_length_relieved)
    )
    rows = f"{plan.most_rows} x {length:,} tokens" if plan.most_rows else "none"
    yield f"longest sequence that fits: {longest} tokens, with all reliefs {relieved}"
    yield f"[dim]the model's own limit: {limit:,}[/]"
    yield f"largest micro-batch that fits: {rows}"
    if plan.memory.pinned:
        yield f"host memory for offloaded activations: {plan.memory.pinned / GIB:.1f} GiB"


def _cards(plan: Plan) -> Table:
    table = _table("card", "GiB", "tokens/s", "ceiling", "hours")
    for speed in plan.speeds:
        hours = plan.hours(speed)
        cells = [f"{speed.card.memory_gib:.1f}"]
        if plan.runs_on(speed):
            told = "?" if hours is None else f"{hours:,.1f}"
            cells += [f"{speed.estimate:,.0f}", f"{speed.ceiling:,.0f}", told]
        else:
            cells += ["-", "-", "does not fit"]
        table.add_row(speed.card.name, *cells)
    return table


def _disk(plan: Plan) -> Table:
    table = _table("disk, by stage", "GiB")
    for name, size in plan.disk.items():
        if name in DISK_NAMES and size >= SMALLEST_SHOWN:
            stage, told = DISK_NAMES[name]
            table.add_row(f"{stage}: {told}", f"{size:.2f}")
    table.add_row("all of it", f"{plan.disk['total']:.2f}", style="bold")
    return table


def _changes(plan: Plan) -> Table:
    table = _table("what to change, cheapest first", "saves", "peak GiB", "")
    for change in plan.changes:
        table.add_row(*_change_cells(change))
        if change.fits:
            break
    return table


def _change_cells(change: Change) -> list[str]:
    told = change.told if change.keeps_result else f"{change.told} [yellow](changes the result)[/]"
    fits = "[green]fits[/]" if change.fits else ""
    return [told, f"{change.saves:.2f}", f"{change.peak:.2f}", fits]
