"""What tests write to an outbox, and what they look for there and in a store."""

from support import RUN

KEY = "ab" * 16  # the name of an outbox
AT = RUN["timestamp"]


def add_metric(outbox, step=1):
    outbox.append("metrics", metrics={"a": step / 2}, step=step, timestamp=AT + step)


def runs_of(store):
    experiments = store.client.search_experiments()
    return store.client.search_runs([found.experiment_id for found in experiments])


def steps_of(store, run_id):
    return [point.step for point in store.client.get_metric_history(run_id, "a")]


def all_of(outbox):
    """The values of all records that are to be tried, in order."""
    found, after = [], -1
    while record := outbox.next(after):
        found.append(record)
        after = record.number
    return found
