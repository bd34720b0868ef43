"""All tasks of a run's evaluation: its own test rows, further sets, and the guard sets."""

from pathlib import Path

from configs.schema import RunConfig
from evals.guard.load_guard import load_guard_tasks
from evals.task import EvaluationTask
from evals.task_rows import load_own_task, load_task


def load_tasks(config: RunConfig, data_folder: Path) -> list[EvaluationTask]:
    """Every task, the primary ones first; errors as the sources tell them."""
    settings = config.evaluation
    own = load_own_task(config, data_folder)
    further = [load_task(task, config=config, data_folder=data_folder) for task in settings.tasks]
    further.sort(key=lambda task: task.role != "primary")
    guards = load_guard_tasks(
        settings.guard,
        temperature=settings.temperature,
        num_epochs=settings.num_epochs,
        seed=settings.seed,
    )
    return [own, *further, *guards]


def pilot_of(config: RunConfig, limit: int) -> RunConfig:
    """The same evaluation of at most `limit` questions a task."""
    settings = config.evaluation
    fewer = {"num_samples": min(limit, settings.num_samples)}
    tasks = [
        task.model_copy(update={"num_samples": min(limit, task.num_samples)})
        for task in settings.tasks
    ]
    guard = settings.guard.model_copy(
        update={"num_samples": min(limit, settings.guard.num_samples)}
    )
    evaluation = settings.model_copy(update={**fewer, "tasks": tasks, "guard": guard})
    return config.model_copy(update={"evaluation": evaluation})
